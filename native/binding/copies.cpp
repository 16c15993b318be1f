// copyPieces over views: many copies in one call (transport/parallel_copy.h).
#include "binding/arguments.h"
#include "binding/exports.h"
#include "transport/parallel_copy.h"

namespace mooncake::binding {

namespace {

struct View {
  u8* data = nullptr;
  u64 length = 0;
};

View viewOf(Napi::Env env, const Napi::Array& views, u32 index) {
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  const napi_status status = napi_get_typedarray_info(env, views.Get(index), &type, &length, &data, nullptr, nullptr);
  if (status != napi_ok || type != napi_uint8_array) {
    refuse(env, {Code::invalidArgument, "views[" + std::to_string(index) + "] is not a Uint8Array"});
  }
  return {static_cast<u8*>(data), length};
}

template <class Array>
Array typed(const Napi::CallbackInfo& info, size_t index, napi_typedarray_type type, const char* what) {
  const Napi::Value value = info[index];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    refuse(info.Env(), {Code::invalidArgument, what});
  }
  return value.As<Array>();
}

/** `views`: destination and source in turns; `which`: the sum that each pair continues, or NO_SUM. */
Napi::Value copies(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsArray()) return refuse(env, {Code::invalidArgument, "views is not an array"});
  const Napi::Array views = info[0].As<Napi::Array>();
  const auto which = typed<Napi::Uint32Array>(info, 1, napi_uint32_array, "which is not a Uint32Array");
  auto sums = typed<Napi::BigUint64Array>(info, 2, napi_biguint64_array, "sums is not a BigUint64Array");
  Arguments arguments(info);
  const u64 streaming = arguments.count(3, "streamingBytes");
  if (!arguments.ok()) return arguments.refuse();
  const u32 count = views.Length() / 2;
  if (views.Length() % 2 != 0 || which.ElementLength() < count) {
    return refuse(env, {Code::invalidArgument, std::to_string(views.Length()) + " views are no pairs, each with a sum"});
  }
  std::vector<CopyPiece> pieces(count);
  for (u32 i = 0; i < count; i++) {
    const View to = viewOf(env, views, 2 * i);
    const View from = viewOf(env, views, 2 * i + 1);
    const u32 sum = which.Data()[i];
    if (to.length != from.length) {
      return refuse(env, {Code::invalidArgument, "views[" + std::to_string(2 * i) + "] has " + std::to_string(to.length) +
                                                     " bytes, its source " + std::to_string(from.length)});
    }
    if (sum != NO_SUM && sum >= sums.ElementLength()) {
      return refuse(env, {Code::invalidArgument, "which[" + std::to_string(i) + "] names no sum"});
    }
    pieces[i] = {to.data, from.data, to.length, sum, to.length >= streaming ? Store::streaming : Store::cached};
  }
  copyPieces(std::move(pieces), std::span<u64>(sums.Data(), sums.ElementLength()));
  return env.Undefined();
}

}  // namespace

void exportCopies(Napi::Env env, Napi::Object exports) {
  exports.Set("copyPieces", Napi::Function::New(env, copies, "copyPieces"));
}

}  // namespace mooncake::binding
