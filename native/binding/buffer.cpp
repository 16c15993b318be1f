#include "binding/buffer.h"

#include "binding/arguments.h"

namespace mooncake::binding {

namespace {

struct Owner {
  std::function<void()> gone;

  ~Owner() {
    if (gone) gone();
  }
};

void collected(napi_env, void*, void* owner) { delete static_cast<Owner*>(owner); }

}  // namespace

Napi::Value bufferOver(Napi::Env env, std::shared_ptr<Mapping> mapping, u64 length, std::function<void()> gone) {
  u8* const base = mapping->base();
  return bufferOver(env, base, length, [mapping = std::move(mapping), gone = std::move(gone)] {
    if (gone) gone();
  });
}

Napi::Value bufferOver(Napi::Env env, u8* base, u64 length, std::function<void()> gone) {
  auto owner = std::make_unique<Owner>();
  owner->gone = std::move(gone);
  napi_value buffer = nullptr;
  const napi_status status = napi_create_external_arraybuffer(env, base, length, collected, owner.get(), &buffer);
  // A buffer that is too large for Node is refused by calling its finalizer; a Node that takes none does not call it.
  if (status != napi_no_external_buffers_allowed) owner.release();
  if (status == napi_ok) return Napi::Value(env, buffer);
  if (env.IsExceptionPending()) throw env.GetAndClearPendingException();
  return refuse(env, {Code::notSupported, "Node takes no buffer of " + std::to_string(length) + " bytes of ours"});
}

}  // namespace mooncake::binding
