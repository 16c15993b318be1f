// allocate, mapFile, keepFreedMemory and adjustExternalMemory: memory for those who need no engine.
#include "memory/file_mapping.h"
#include "memory/process.h"

#include "binding/arguments.h"
#include "binding/buffer.h"
#include "binding/exports.h"

namespace mooncake::binding {

namespace {

Napi::Value allocateBuffer(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const u64 length = arguments.count(0, "length");
  if (!arguments.ok()) return arguments.refuse();
  const Expected<Allocation> made = allocate(processMemory(), length, {});
  if (!made.ok()) return refuse(info.Env(), made.status);
  return bufferOver(info.Env(), made.value.mapping, length,
                    [id = made.value.id] { static_cast<void>(processMemory().remove(id, {})); });
}

Napi::Value mapFileBuffer(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const u64 fd = arguments.count(0, "fd", INT32_MAX);
  const u64 offset = arguments.count(1, "offset");
  const u64 length = arguments.count(2, "length");
  if (!arguments.ok()) return arguments.refuse();
  const Expected<std::shared_ptr<Mapping>> mapped = mapFile(static_cast<int>(fd), offset, length);
  if (!mapped.ok()) return refuse(info.Env(), mapped.status);
  return bufferOver(info.Env(), mapped.value, length);
}

Napi::Value keepFreed(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const u64 bytes = arguments.count(0, "bytes");
  if (!arguments.ok()) return arguments.refuse();
  return Napi::Boolean::New(info.Env(), keepFreedMemory(bytes));
}

Napi::Value adjustExternal(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsNumber()) refuse(info.Env(), {Code::invalidArgument, "change is not a number"});
  const int64_t total = Napi::MemoryManagement::AdjustExternalMemory(info.Env(), info[0].As<Napi::Number>().Int64Value());
  return Napi::Number::New(info.Env(), static_cast<double>(total));
}

}  // namespace

void exportProcess(Napi::Env env, Napi::Object exports) {
  exports.Set("allocate", Napi::Function::New(env, allocateBuffer, "allocate"));
  exports.Set("mapFile", Napi::Function::New(env, mapFileBuffer, "mapFile"));
  exports.Set("keepFreedMemory", Napi::Function::New(env, keepFreed, "keepFreedMemory"));
  exports.Set("adjustExternalMemory", Napi::Function::New(env, adjustExternal, "adjustExternalMemory"));
}

}  // namespace mooncake::binding
