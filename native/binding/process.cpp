// allocate and keepFreedMemory: memory for those who need no engine.
#include "binding/arguments.h"
#include "binding/exports.h"
#include "memory/allocate.h"
#include "memory/process.h"

namespace mooncake::binding {

namespace {

/** What the buffer of a segment owns until the collector finds it. */
struct Owned {
  u32 id;
  std::shared_ptr<Mapping> mapping;

  ~Owned() { static_cast<void>(processMemory().remove(id, {})); }
};

void collected(napi_env, void*, void* owned) { delete static_cast<Owned*>(owned); }

Napi::Value allocateBuffer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const u64 length = arguments.count(0, "length");
  if (!arguments.ok()) return arguments.refuse();
  Expected<Allocation> made = allocate(processMemory(), length, {});
  if (!made.ok()) return refuse(env, made.status);
  auto owned = std::make_unique<Owned>(Owned{made.value.id, std::move(made.value.mapping)});
  napi_value buffer = nullptr;
  const napi_status status = napi_create_external_arraybuffer(env, owned->mapping->base(), length, collected,
                                                              owned.get(), &buffer);
  if (status == napi_ok) {
    owned.release();
    return Napi::Value(env, buffer);
  }
  // Where Node refused the buffer itself it calls the finalizer; where it takes none of others' memory it does not.
  if (status != napi_no_external_buffers_allowed) owned.release();
  if (env.IsExceptionPending()) return {};
  return refuse(env, {Code::notSupported, "a buffer of " + std::to_string(length) + " bytes"});
}

Napi::Value keepFreed(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const u64 bytes = arguments.count(0, "bytes");
  if (!arguments.ok()) return arguments.refuse();
  return Napi::Boolean::New(info.Env(), keepFreedMemory(bytes));
}

}  // namespace

void exportProcess(Napi::Env env, Napi::Object exports) {
  exports.Set("allocate", Napi::Function::New(env, allocateBuffer, "allocate"));
  exports.Set("keepFreedMemory", Napi::Function::New(env, keepFreed, "keepFreedMemory"));
}

}  // namespace mooncake::binding
