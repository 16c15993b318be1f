// Reads a call's arguments and throws what the engine refuses: an Error whose `code` is the number of the Code. The first
// wrong argument is remembered, so that a method reads all of them and asks once. What getters and proxies of the caller
// throw goes through as C++ exceptions, as everything that is thrown here; node-addon-api hands it to JavaScript.
#pragma once

#include "engine/engine.h"

#include <napi.h>

namespace mooncake::binding {

/** The Error that JavaScript gets of it. */
Napi::Error toError(Napi::Env env, const Status& status);
/** Throws; declared with a value for `return`. */
[[noreturn]] Napi::Value refuse(Napi::Env env, const Status& status);

class Arguments {
 public:
  explicit Arguments(const Napi::CallbackInfo& info) : info_(info) {}

  /** Whole numbers from 0 to `most`. */
  u64 count(size_t index, const char* name, u64 most = u64{1} << 53);
  bool flag(size_t index, const char* name);
  std::string text(size_t index, const char* name);
  u64 address(size_t index, const char* name);
  Napi::Function function(size_t index, const char* name);
  Napi::Object object(size_t index, const char* name);
  Napi::Uint8Array view(size_t index, const char* name);
  Settings settings(size_t index, const char* name);
  std::vector<PeerEndpoint> endpoints(size_t index, const char* name);
  std::vector<RemoteSegment> segments(size_t index, const char* name);
  /** Header and records of KVTD descriptors; copied. */
  std::vector<Record> descriptors(size_t index, const char* name);

  bool ok() const { return status_.ok(); }
  [[noreturn]] Napi::Value refuse() const { binding::refuse(info_.Env(), status_); }

  // Properties of an object; `fallback` where it has none.
  u64 property(Napi::Object from, const char* name, u64 fallback, u64 most);
  bool property(Napi::Object from, const char* name, bool fallback);
  double property(Napi::Object from, const char* name, double fallback);
  /** Of 32 bits each; none where it has none. */
  std::vector<u32> numbers(Napi::Object from, const char* name);

 private:
  void wrong(const std::string& name, const char* expected);
  u64 toCount(Napi::Value value, const std::string& name, u64 most);
  u64 toAddress(Napi::Value value, const std::string& name);
  std::string toText(Napi::Value value, const std::string& name);
  std::shared_ptr<const std::vector<u32>> toKeys(Napi::Value value, const std::string& name);
  Settings toSettings(Napi::Value value, const std::string& name);

  const Napi::CallbackInfo& info_;
  Status status_;
};

}  // namespace mooncake::binding
