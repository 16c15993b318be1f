#include "binding/arguments.h"

#include <cmath>
#include <cstring>

namespace mooncake::binding {

namespace {

/** Header of KVTD descriptors: src/core/descriptors.ts. */
struct DescriptorsHeader {
  u32 magic;
  u16 version;
  u16 recordBytes;
  u64 count;
  u8 zero[16];
};
static_assert(sizeof(DescriptorsHeader) == sizeof(Record));
constexpr u32 KVTD = 0x4454564b;

}  // namespace

Napi::Error toError(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.detail);
  error.Set("code", Napi::Number::New(env, static_cast<int>(status.code)));
  return error;
}

Napi::Value refuse(Napi::Env env, const Status& status) { throw toError(env, status); }

void Arguments::wrong(const std::string& name, const char* expected) {
  if (status_.ok()) status_ = {Code::invalidArgument, name + " is not " + expected};
}

u64 Arguments::toCount(Napi::Value value, const std::string& name, u64 most) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (number >= 0 && number <= static_cast<double>(most) && std::floor(number) == number) {
    return static_cast<u64>(number);
  }
  wrong(name, ("a whole number from 0 to " + std::to_string(most)).c_str());
  return 0;
}

u64 Arguments::toAddress(Napi::Value value, const std::string& name) {
  bool lossless = false;
  const u64 address = value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
  if (!lossless) wrong(name, "a bigint of 64 bits");
  return address;
}

std::string Arguments::toText(Napi::Value value, const std::string& name) {
  if (value.IsString()) return value.As<Napi::String>().Utf8Value();
  wrong(name, "a string");
  return {};
}

Settings Arguments::toSettings(Napi::Value value, const std::string& name) {
  Settings settings;
  if (!value.IsObject()) {
    wrong(name, "an object of strings");
    return settings;
  }
  const Napi::Object from = value.As<Napi::Object>();
  const Napi::Array keys = from.GetPropertyNames();
  for (u32 i = 0; i < keys.Length(); i++) {
    const std::string key = keys.Get(i).ToString().Utf8Value();
    settings[key] = toText(from.Get(key), name + "." + key);
  }
  return settings;
}

u64 Arguments::count(size_t index, const char* name, u64 most) { return toCount(info_[index], name, most); }

bool Arguments::flag(size_t index, const char* name) {
  if (!info_[index].IsBoolean()) wrong(name, "a boolean");
  return info_[index].IsBoolean() && info_[index].As<Napi::Boolean>().Value();
}

std::string Arguments::text(size_t index, const char* name) { return toText(info_[index], name); }
u64 Arguments::address(size_t index, const char* name) { return toAddress(info_[index], name); }

Napi::Function Arguments::function(size_t index, const char* name) {
  if (info_[index].IsFunction()) return info_[index].As<Napi::Function>();
  wrong(name, "a function");
  return {};
}

Napi::Object Arguments::object(size_t index, const char* name) {
  if (info_[index].IsObject()) return info_[index].As<Napi::Object>();
  wrong(name, "an object");
  return Napi::Object::New(info_.Env());
}

Napi::Uint8Array Arguments::view(size_t index, const char* name) {
  const Napi::Value value = info_[index];
  if (value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array) {
    return value.As<Napi::Uint8Array>();
  }
  wrong(name, "a Uint8Array");
  return {};
}

Settings Arguments::settings(size_t index, const char* name) { return toSettings(info_[index], name); }

std::vector<PeerEndpoint> Arguments::endpoints(size_t index, const char* name) {
  std::vector<PeerEndpoint> endpoints;
  if (!info_[index].IsArray()) {
    wrong(name, "an array");
    return endpoints;
  }
  const Napi::Array from = info_[index].As<Napi::Array>();
  for (u32 i = 0; i < from.Length(); i++) {
    const std::string item = std::string(name) + "[" + std::to_string(i) + "]";
    const Napi::Value value = from.Get(i);
    if (!value.IsObject()) {
      wrong(item, "an object");
      break;
    }
    const Napi::Object endpoint = value.As<Napi::Object>();
    endpoints.push_back({toText(endpoint.Get("transport"), item + ".transport"),
                         toSettings(endpoint.Get("settings"), item + ".settings")});
  }
  return endpoints;
}

std::vector<RemoteSegment> Arguments::segments(size_t index, const char* name) {
  std::vector<RemoteSegment> segments;
  if (!info_[index].IsArray()) {
    wrong(name, "an array");
    return segments;
  }
  const Napi::Array from = info_[index].As<Napi::Array>();
  for (u32 i = 0; i < from.Length(); i++) {
    const std::string item = std::string(name) + "[" + std::to_string(i) + "]";
    const Napi::Value value = from.Get(i);
    if (!value.IsObject()) {
      wrong(item, "an object");
      break;
    }
    const Napi::Object segment = value.As<Napi::Object>();
    segments.push_back({static_cast<u32>(toCount(segment.Get("id"), item + ".id", UINT32_MAX)),
                        toAddress(segment.Get("address"), item + ".address"),
                        toCount(segment.Get("length"), item + ".length", u64{1} << 53), toKeys(segment.Get("keys"), item + ".keys"), property(segment, "writable", true)});
  }
  return segments;
}

std::shared_ptr<const std::vector<u32>> Arguments::toKeys(Napi::Value value, const std::string& name) {
  if (value.IsUndefined()) return nullptr;
  auto keys = std::make_shared<std::vector<u32>>();
  if (!value.IsArray()) {
    wrong(name, "an array");
    return keys;
  }
  const Napi::Array from = value.As<Napi::Array>();
  for (u32 i = 0; i < from.Length(); i++) keys->push_back(static_cast<u32>(toCount(from.Get(i), name, UINT32_MAX)));
  return keys;
}

std::vector<Record> Arguments::descriptors(size_t index, const char* name) {
  std::vector<Record> records;
  const Napi::Uint8Array bytes = view(index, name);
  if (!ok()) return records;
  DescriptorsHeader header{};
  const size_t size = bytes.ByteLength();
  if (size >= sizeof header) std::memcpy(&header, bytes.Data(), sizeof header);
  const bool known = header.magic == KVTD && header.version == 1 && header.recordBytes == sizeof(Record);
  if (!known || size % sizeof(Record) != 0 || header.count != size / sizeof(Record) - 1) {
    wrong(name, "descriptors of version 1");
    return records;
  }
  records.resize(header.count);
  if (header.count > 0) std::memcpy(records.data(), bytes.Data() + sizeof header, size - sizeof header);
  return records;
}

u64 Arguments::property(Napi::Object from, const char* name, u64 fallback, u64 most) {
  const Napi::Value value = from.Get(name);
  return value.IsUndefined() ? fallback : toCount(value, name, most);
}

bool Arguments::property(Napi::Object from, const char* name, bool fallback) {
  const Napi::Value value = from.Get(name);
  if (value.IsUndefined()) return fallback;
  if (!value.IsBoolean()) wrong(name, "a boolean");
  return value.IsBoolean() && value.As<Napi::Boolean>().Value();
}

double Arguments::property(Napi::Object from, const char* name, double fallback) {
  const Napi::Value value = from.Get(name);
  if (value.IsUndefined()) return fallback;
  if (!value.IsNumber()) wrong(name, "a number");
  return value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : fallback;
}

std::vector<u32> Arguments::numbers(Napi::Object from, const char* name) {
  std::vector<u32> numbers;
  const Napi::Value value = from.Get(name);
  if (value.IsUndefined()) return numbers;
  if (!value.IsArray()) {
    wrong(name, "an array");
    return numbers;
  }
  const Napi::Array list = value.As<Napi::Array>();
  for (u32 i = 0; i < list.Length(); i++) numbers.push_back(static_cast<u32>(toCount(list.Get(i), name, UINT32_MAX)));
  return numbers;
}

}  // namespace mooncake::binding
