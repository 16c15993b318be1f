#include "transport/cuda/driver.h"

#include <dlfcn.h>

#include <cstdlib>

namespace mooncake::cuda {

namespace {

/** Which library it is; another one than the machine's for tests (native/test/cuda/library.cpp). */
const char* library() {
  const char* const named = std::getenv("MOONCAKE_CUDA_LIBRARY");
  return named != nullptr && *named != '\0' ? named : "libcuda.so.1";
}

struct Loaded {
  Driver driver;
  Status status;
};

Loaded load() {
  Loaded loaded;
  // Never closed: the driver keeps threads of its own.
  const char* const name = library();
  void* const opened = ::dlopen(name, RTLD_LAZY | RTLD_LOCAL);
  if (opened == nullptr) {
    const char* const why = ::dlerror();
    loaded.status = {Code::notSupported, why != nullptr ? why : std::string("no ") + name};
    return loaded;
  }
  const char* missing = nullptr;
#define MOONCAKE_CUDA_FIND(field, symbol, parameters)                                        \
  loaded.driver.field = reinterpret_cast<Result(*) parameters>(::dlsym(opened, symbol));     \
  if (loaded.driver.field == nullptr) missing = symbol;
  MOONCAKE_CUDA_CALLS(MOONCAKE_CUDA_FIND)
#undef MOONCAKE_CUDA_FIND
#define MOONCAKE_CUDA_LOOK_FOR(field, symbol, parameters) \
  loaded.driver.field = reinterpret_cast<Result(*) parameters>(::dlsym(opened, symbol));
  MOONCAKE_CUDA_OPTIONAL_CALLS(MOONCAKE_CUDA_LOOK_FOR)
#undef MOONCAKE_CUDA_LOOK_FOR
  if (missing != nullptr) {
    loaded.status = {Code::notSupported, std::string(name) + " has no " + missing};
    return loaded;
  }
  if (const Result result = loaded.driver.init(0); result != SUCCESS) {
    loaded.status = {Code::notSupported, loaded.driver.status("cuInit", result).detail};
  }
  return loaded;
}

}  // namespace

Status Driver::status(const std::string& call, Result result) const {
  if (result == SUCCESS) return {};
  const char* name = nullptr;
  const char* text = nullptr;
  errorName(result, &name);
  errorText(result, &text);
  return {result == OUT_OF_MEMORY ? Code::outOfMemory : Code::system,
          call + ": " + (name != nullptr ? name : std::to_string(result)) + (text != nullptr ? std::string(" (") + text + ")" : "")};
}

Expected<const Driver*> driver() {
  static const Loaded loaded = load();
  if (!loaded.status.ok()) return loaded.status;
  return &loaded.driver;
}

}  // namespace mooncake::cuda
