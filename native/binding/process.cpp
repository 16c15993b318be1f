// allocate, keepFreedMemory and adjustExternalMemory: memory for those who need no engine.
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
  exports.Set("keepFreedMemory", Napi::Function::New(env, keepFreed, "keepFreedMemory"));
  exports.Set("adjustExternalMemory", Napi::Function::New(env, adjustExternal, "adjustExternalMemory"));
}

}  // namespace mooncake::binding
