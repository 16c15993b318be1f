// EngineObject's part about segments.
#include "binding/buffer.h"
#include "binding/engine.h"
#include "memory/dmabuf.h"
#include "memory/process.h"

#include <unistd.h>

namespace mooncake::binding {

namespace {

Napi::Value address(Napi::Env env, const u8* base) {
  return Napi::BigInt::New(env, static_cast<u64>(reinterpret_cast<std::uintptr_t>(base)));
}

/** Opens a file on a thread of libuv's pool: allocating its blocks may take long. */
class FileOpening final : public Napi::AsyncWorker {
 public:
  FileOpening(Napi::Env env, std::shared_ptr<Engine> engine, std::string path, u64 length, bool writable)
      : AsyncWorker(env),
        engine_(std::move(engine)),
        path_(std::move(path)),
        asked_(length),
        writable_(writable),
        opened_(Napi::Promise::Deferred::New(env)) {}

  Napi::Promise promise() const { return opened_.Promise(); }

 private:
  void Execute() override {
    id_ = engine_->openFile(path_, asked_, writable_);
    const SegmentRef file = id_.ok() ? engine_->memory().hold(id_.value) : SegmentRef();
    if (file) length_ = file->length;
  }

  void OnOK() override {
    if (!id_.ok()) return opened_.Reject(toError(Env(), id_.status).Value());
    Napi::Object result = Napi::Object::New(Env());
    result.Set("id", id_.value);
    result.Set("length", static_cast<double>(length_));
    opened_.Resolve(result);
  }

  const std::shared_ptr<Engine> engine_;
  const std::string path_;
  const u64 asked_;
  const bool writable_;
  const Napi::Promise::Deferred opened_;
  Expected<u32> id_ = Status(Code::closed, "the file was not opened");
  u64 length_ = 0;
};

}  // namespace

Napi::Value EngineObject::allocate(Info info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const u64 length = arguments.count(0, "length");
  const Napi::Object given = arguments.object(1, "options");
  AllocateOptions options;
  options.hugePages = arguments.property(given, "hugePages", true);
  options.writable = arguments.property(given, "writable", true);
  if (given.Has("numaNode") && !given.Get("numaNode").IsUndefined()) {
    options.numaNode = static_cast<int>(arguments.property(given, "numaNode", 0, 1023));
  }
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const Expected<Allocation> made = engine_->allocate(length, options);
  if (!made.ok()) return refuse(env, made.status);
  Napi::Value memory;
  try {
    memory = bufferOver(env, made.value.mapping, length);
  } catch (const Napi::Error&) {
    static_cast<void>(engine_->memory().remove(made.value.id, {}));
    throw;
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("id", made.value.id);
  result.Set("memory", memory);
  result.Set("address", address(env, made.value.mapping->base()));
  return result;
}

Expected<u32> EngineObject::add(u64 base, u64 length, bool writable) {
  Segment segment;
  segment.base = reinterpret_cast<u8*>(base);
  segment.length = length;
  segment.writable = writable;
  if (Status status = shareProcessMemory(segment); !status.ok()) return status;
  const int fd = segment.fd;
  Expected<u32> id = engine_->memory().add(std::move(segment), {});
  if (!id.ok() && fd >= 0) ::close(fd);
  return id;
}

Napi::Value EngineObject::registerView(Info info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  Napi::Uint8Array view = arguments.view(0, "view");
  const bool writable = arguments.flag(1, "writable");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  u8* const base = view.Data();
  const Expected<u32> id = add(reinterpret_cast<u64>(base), view.ByteLength(), writable);
  if (!id.ok()) return refuse(env, id.status);
  views_.emplace(id.value, Napi::Persistent(view.As<Napi::Object>()));
  Napi::Object result = Napi::Object::New(env);
  result.Set("id", id.value);
  result.Set("address", address(env, base));
  return result;
}

Napi::Value EngineObject::registerAddress(Info info) {
  Arguments arguments(info);
  const u64 base = arguments.address(0, "address");
  const u64 length = arguments.count(1, "length");
  const bool writable = arguments.flag(2, "writable");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const Expected<u32> id = add(base, length, writable);
  if (!id.ok()) return refuse(info.Env(), id.status);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("id", id.value);
  return result;
}

Napi::Value EngineObject::registerDmabuf(Info info) {
  Arguments arguments(info);
  const u64 fd = arguments.count(0, "fd", INT32_MAX);
  const u64 offset = arguments.count(1, "offset");
  const u64 length = arguments.count(2, "length");
  const bool writable = arguments.flag(3, "writable");
  const std::string pci = arguments.text(4, "pci");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const PciPlace place = placeOfPci(pciAddress(pci));
  if (!pci.empty() && !place) return refuse(info.Env(), {Code::invalidArgument, "this machine shows no PCI device " + pci});
  MemoryTable& memory = engine_->memory();
  const Expected<u32> id = addDmabuf(memory, static_cast<int>(fd), offset, length, writable, place);
  if (!id.ok()) return refuse(info.Env(), id.status);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("id", id.value);
  result.Set("address", Napi::BigInt::New(info.Env(), memory.hold(id.value)->deviceAddress));
  return result;
}

Napi::Value EngineObject::openFile(Info info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const std::string path = arguments.text(0, "path");
  const u64 length = arguments.count(1, "length");
  const bool writable = arguments.flag(2, "writable");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  auto* const opening = new FileOpening(env, engine_, path, length, writable);
  const Napi::Promise promise = opening->promise();
  opening->Queue();
  return promise;
}

Napi::Value EngineObject::unregister(Info info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const u32 id = static_cast<u32>(arguments.count(0, "id", UINT32_MAX));
  const Napi::Function called = arguments.function(1, "released");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const Status status = engine_->memory().remove(
      id, [this, id, mailbox = mailbox_] { mailbox->post([this, id](Napi::Env now) { released(now, id); }); });
  if (!status.ok()) return refuse(env, status);
  // It may be released by now; JavaScript hears of it later in any case.
  mailbox_->await(env);
  unregistering_.emplace(id, Napi::Persistent(called));
  return env.Undefined();
}

void EngineObject::released(Napi::Env env, u32 id) {
  mailbox_->arrived(env, 1);
  views_.erase(id);
  const auto found = unregistering_.find(id);
  const Napi::Function called = found->second.Value();
  unregistering_.erase(found);
  called.Call({});
}

}  // namespace mooncake::binding
