// crc64, copyCrc64 and copy over views. Calls of small views are frequent, so arguments are read by the C interface, which
// makes no handles for them.
#include "checksum/copy.h"
#include "checksum/crc64.h"
#include "binding/exports.h"

#include <array>
#include <cstring>
#include <functional>
#include <string>

namespace mooncake::binding {
namespace {

struct View {
  u8* data = nullptr;
  u64 length = 0;
};

/** The arguments of a call; the first wrong one leaves a TypeError pending, and `ok` says no from then on. */
template <size_t COUNT>
class RawArguments {
 public:
  RawArguments(napi_env env, napi_callback_info info) : env_(env) {
    size_t count = COUNT;
    ok_ = napi_get_cb_info(env, info, &count, values_.data(), nullptr, nullptr) == napi_ok;
  }

  View view(size_t index, const char* name) {
    View view;
    if (!ok_) return view;
    napi_typedarray_type type = napi_int8_array;
    size_t length = 0;
    void* data = nullptr;
    const napi_status status =
        napi_get_typedarray_info(env_, values_[index], &type, &length, &data, nullptr, nullptr);
    if (status != napi_ok || type != napi_uint8_array) {
      refuse(std::string(name) + " must be a Uint8Array");
      return view;
    }
    return {static_cast<u8*>(data), length};
  }

  u64 crc(size_t index) {
    u64 value = 0;
    bool lossless = false;
    if (!ok_) return value;
    if (napi_get_value_bigint_uint64(env_, values_[index], &value, &lossless) != napi_ok || !lossless) {
      refuse("crc must be a bigint from 0n to 2n ** 64n - 1n");
    }
    return value;
  }

  Store store(size_t index) {
    napi_valuetype type = napi_undefined;
    bool streaming = false;
    if (!ok_ || napi_typeof(env_, values_[index], &type) != napi_ok || type == napi_undefined) return Store::automatic;
    if (napi_get_value_bool(env_, values_[index], &streaming) != napi_ok) refuse("streaming must be a boolean");
    return streaming ? Store::streaming : Store::cached;
  }

  void checkLengths(View destination, View source) {
    if (!ok_ || destination.length == source.length) return;
    refuse("destination has " + std::to_string(destination.length) + " bytes, source " +
           std::to_string(source.length) + ": they must be of the same length");
  }

  bool ok() const { return ok_; }

 private:
  void refuse(const std::string& what) {
    ok_ = false;
    napi_throw_type_error(env_, nullptr, what.c_str());
  }

  napi_env env_;
  std::array<napi_value, COUNT> values_{};
  bool ok_;
};

napi_value toBigint(napi_env env, u64 value) {
  napi_value result = nullptr;
  napi_create_bigint_uint64(env, value, &result);
  return result;
}

bool overlap(View a, View b) {
  const std::less<const u8*> before;
  return before(a.data, b.data + b.length) && before(b.data, a.data + a.length);
}

napi_value crc64Of(napi_env env, napi_callback_info info) {
  RawArguments<2> arguments(env, info);
  const View view = arguments.view(0, "view");
  const u64 crc = arguments.crc(1);
  return arguments.ok() ? toBigint(env, crc64(view.data, view.length, crc)) : nullptr;
}

napi_value copyCrc64Of(napi_env env, napi_callback_info info) {
  RawArguments<4> arguments(env, info);
  const View destination = arguments.view(0, "destination");
  const View source = arguments.view(1, "source");
  const u64 crc = arguments.crc(2);
  const Store store = arguments.store(3);
  arguments.checkLengths(destination, source);
  if (!arguments.ok()) return nullptr;
  if (overlap(destination, source)) {
    std::memmove(destination.data, source.data, source.length);
    return toBigint(env, crc64(destination.data, destination.length, crc));
  }
  return toBigint(env, copyCrc64(destination.data, source.data, source.length, crc, store));
}

napi_value copyOf(napi_env env, napi_callback_info info) {
  RawArguments<3> arguments(env, info);
  const View destination = arguments.view(0, "destination");
  const View source = arguments.view(1, "source");
  const Store store = arguments.store(2);
  arguments.checkLengths(destination, source);
  if (!arguments.ok()) return nullptr;
  if (overlap(destination, source)) {
    std::memmove(destination.data, source.data, source.length);
  } else {
    copyBytes(destination.data, source.data, source.length, store);
  }
  return nullptr;
}

void exportFunction(Napi::Env env, Napi::Object exports, const char* name, napi_callback call) {
  napi_value function = nullptr;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, call, nullptr, &function) == napi_ok) {
    exports.Set(name, Napi::Value(env, function));
  }
}

}  // namespace

void exportChecksum(Napi::Env env, Napi::Object exports) {
  exportFunction(env, exports, "crc64", crc64Of);
  exportFunction(env, exports, "copyCrc64", copyCrc64Of);
  exportFunction(env, exports, "copy", copyOf);
  exports.Set("checksum", Napi::String::New(env, checksumKind()));
}

}  // namespace mooncake::binding
