// allocate and keepFreedMemory: memory for those who need no engine.
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

}  // namespace

void exportProcess(Napi::Env env, Napi::Object exports) {
  exports.Set("allocate", Napi::Function::New(env, allocateBuffer, "allocate"));
  exports.Set("keepFreedMemory", Napi::Function::New(env, keepFreed, "keepFreedMemory"));
}

}  // namespace mooncake::binding
