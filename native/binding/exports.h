// What the addon exports, by topic; each in a file of the same name.
#pragma once

#include <napi.h>

namespace mooncake::binding {

void exportChecksum(Napi::Env env, Napi::Object exports);
void exportControlSocket(Napi::Env env, Napi::Object exports);
void exportCopies(Napi::Env env, Napi::Object exports);
void exportEngine(Napi::Env env, Napi::Object exports);
void exportProbe(Napi::Env env, Napi::Object exports);
void exportProcess(Napi::Env env, Napi::Object exports);
void exportService(Napi::Env env, Napi::Object exports);

}  // namespace mooncake::binding
