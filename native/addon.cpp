// Registers what binding/ exports to Node; nothing else happens here.
#include "binding/exports.h"

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  mooncake::binding::exportChecksum(env, exports);
  mooncake::binding::exportControlSocket(env, exports);
  mooncake::binding::exportCopies(env, exports);
  mooncake::binding::exportEngine(env, exports);
  mooncake::binding::exportProbe(env, exports);
  mooncake::binding::exportProcess(env, exports);
  mooncake::binding::exportService(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(mooncake, init)
