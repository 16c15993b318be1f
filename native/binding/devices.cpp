// EngineObject's part about memory of GPUs.
#include "binding/engine.h"

#include <cstring>

namespace mooncake::binding {

namespace {

Napi::Value number(Napi::Env env, const Expected<u32>& id) {
  if (!id.ok()) return refuse(env, id.status);
  return Napi::Number::New(env, id.value);
}

/** A handle of 64 bytes; refuses others. */
template <class Handle>
Handle handleOf(Napi::Env env, Napi::Uint8Array bytes) {
  Handle handle;
  if (bytes.ByteLength() != sizeof handle.bytes) {
    refuse(env, {Code::invalidArgument, "handle has " + std::to_string(bytes.ByteLength()) + " bytes, not 64"});
  }
  std::memcpy(handle.bytes, bytes.Data(), sizeof handle.bytes);
  return handle;
}

}  // namespace

Napi::Value EngineObject::allocateDevice(Info info) {
  Arguments arguments(info);
  const std::string gpu = arguments.text(0, "device");
  const u64 length = arguments.count(1, "length");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  return number(info.Env(), engine_->allocateDevice(gpu, length));
}

Napi::Value EngineObject::registerDevice(Info info) {
  Arguments arguments(info);
  const std::string gpu = arguments.text(0, "device");
  const u64 address = arguments.address(1, "address");
  const u64 length = arguments.count(2, "length");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  return number(info.Env(), engine_->registerDevice(gpu, address, length));
}

Napi::Value EngineObject::importDevice(Info info) {
  Arguments arguments(info);
  const std::string gpu = arguments.text(0, "device");
  Napi::Uint8Array bytes = arguments.view(1, "handle");
  const u64 offset = arguments.count(2, "offset");
  const u64 length = arguments.count(3, "length");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const auto handle = handleOf<cuda::IpcHandle>(info.Env(), bytes);
  return number(info.Env(), engine_->importDevice(gpu, handle, offset, length));
}

Napi::Value EngineObject::exportDevice(Info info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const u32 id = static_cast<u32>(arguments.count(0, "segment", UINT32_MAX));
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const Expected<cuda::Exported> exported = engine_->exportDevice(id);
  if (!exported.ok()) return refuse(env, exported.status);
  Napi::Object result = Napi::Object::New(env);
  result.Set("handle", Napi::Buffer<u8>::Copy(env, exported.value.handle.bytes, sizeof exported.value.handle.bytes));
  result.Set("offset", static_cast<double>(exported.value.offset));
  return result;
}

Napi::Value EngineObject::allocateVirtual(Info info) {
  Arguments arguments(info);
  const std::string gpu = arguments.text(0, "device");
  const u64 length = arguments.count(1, "length");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  return number(info.Env(), engine_->allocateVirtual(gpu, length));
}

/** (device, fabric handle or array of descriptors, array of the allocations' bytes, offset, length) */
Napi::Value EngineObject::mapDevice(Info info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const std::string gpu = arguments.text(0, "device");
  const u64 offset = arguments.count(3, "offset");
  const u64 length = arguments.count(4, "length");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  if (!info[2].IsArray()) return refuse(env, {Code::invalidArgument, "sizes is not an array"});
  const Napi::Array sizes = info[2].As<Napi::Array>();
  std::vector<cuda::Shared> shared(sizes.Length());
  for (u32 i = 0; i < shared.size(); i++) shared[i].bytes = static_cast<u64>(sizes.Get(i).ToNumber().Int64Value());
  if (info[1].IsArray() && info[1].As<Napi::Array>().Length() == shared.size()) {
    for (u32 i = 0; i < shared.size(); i++) shared[i].fd = info[1].As<Napi::Array>().Get(i).ToNumber().Int32Value();
  } else {
    const Napi::Uint8Array fabric = arguments.view(1, "handle");
    if (!arguments.ok()) return arguments.refuse();
    if (shared.size() != 1) return refuse(env, {Code::invalidArgument, "a fabric handle stands for one allocation"});
    shared[0].type = cuda::HANDLE_FABRIC;
    shared[0].fabric = handleOf<cuda::FabricHandle>(env, fabric);
  }
  return number(env, engine_->mapDevice(gpu, shared, offset, length));
}

Napi::Value EngineObject::exportDescriptor(Info info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const u32 id = static_cast<u32>(arguments.count(0, "segment", UINT32_MAX));
  const std::string kind = arguments.text(1, "kind");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const Expected<cuda::ExportedFd> exported = kind == "dma-buf" ? engine_->exportDmabuf(id) : engine_->exportAllocation(id);
  if (!exported.ok()) return refuse(env, exported.status);
  Napi::Object result = Napi::Object::New(env);
  result.Set("fd", exported.value.fd);
  result.Set("offset", static_cast<double>(exported.value.offset));
  result.Set("size", static_cast<double>(exported.value.bytes));
  if (!exported.value.pci.empty()) result.Set("pci", exported.value.pci);
  return result;
}

Napi::Value EngineObject::createEvent(Info info) {
  Arguments arguments(info);
  const std::string gpu = arguments.text(0, "device");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  return number(info.Env(), engine_->createEvent(gpu));
}

Napi::Value EngineObject::openEvent(Info info) {
  Arguments arguments(info);
  const std::string gpu = arguments.text(0, "device");
  Napi::Uint8Array bytes = arguments.view(1, "handle");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  return number(info.Env(), engine_->openEvent(gpu, handleOf<cuda::IpcEventHandle>(info.Env(), bytes)));
}

Napi::Value EngineObject::exportEvent(Info info) {
  Arguments arguments(info);
  const u32 id = static_cast<u32>(arguments.count(0, "event", UINT32_MAX));
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const Expected<cuda::IpcEventHandle> handle = engine_->exportEvent(id);
  if (!handle.ok()) return refuse(info.Env(), handle.status);
  return Napi::Buffer<u8>::Copy(info.Env(), handle.value.bytes, sizeof handle.value.bytes);
}

Napi::Value EngineObject::closeEvent(Info info) {
  Arguments arguments(info);
  const u32 id = static_cast<u32>(arguments.count(0, "event", UINT32_MAX));
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  if (const Status status = engine_->closeEvent(id); !status.ok()) return refuse(info.Env(), status);
  return info.Env().Undefined();
}

}  // namespace mooncake::binding
