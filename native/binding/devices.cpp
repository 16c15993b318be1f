// EngineObject's part about memory of GPUs.
#include "binding/engine.h"

#include <cstring>

namespace mooncake::binding {

namespace {

Napi::Value segment(Napi::Env env, const Expected<u32>& id) {
  if (!id.ok()) return refuse(env, id.status);
  return Napi::Number::New(env, id.value);
}

}  // namespace

Napi::Value EngineObject::allocateDevice(Info info) {
  Arguments arguments(info);
  const std::string gpu = arguments.text(0, "device");
  const u64 length = arguments.count(1, "length");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  return segment(info.Env(), engine_->allocateDevice(gpu, length));
}

Napi::Value EngineObject::registerDevice(Info info) {
  Arguments arguments(info);
  const std::string gpu = arguments.text(0, "device");
  const u64 address = arguments.address(1, "address");
  const u64 length = arguments.count(2, "length");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  return segment(info.Env(), engine_->registerDevice(gpu, address, length));
}

Napi::Value EngineObject::importDevice(Info info) {
  Arguments arguments(info);
  const std::string gpu = arguments.text(0, "device");
  Napi::Uint8Array bytes = arguments.view(1, "handle");
  const u64 offset = arguments.count(2, "offset");
  const u64 length = arguments.count(3, "length");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  cuda::IpcHandle handle;
  if (bytes.ByteLength() != sizeof handle.bytes) {
    return refuse(info.Env(), {Code::invalidArgument, "handle has " + std::to_string(bytes.ByteLength()) + " bytes, not 64"});
  }
  std::memcpy(handle.bytes, bytes.Data(), sizeof handle.bytes);
  return segment(info.Env(), engine_->importDevice(gpu, handle, offset, length));
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

}  // namespace mooncake::binding
