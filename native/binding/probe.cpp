// Which build this is, and what the machine lets it do.
#include "binding/exports.h"
#include "engine/status.h"
#include "topology/features.h"

namespace mooncake::binding {

namespace {

/** Grows with every change of what the addon exports; src/native/load.ts takes no other. */
constexpr int kInterface = 12;

Napi::Value probe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::vector<Feature> features = probeFeatures();
  Napi::Array list = Napi::Array::New(env, features.size());
  for (u32 i = 0; i < features.size(); i++) {
    Napi::Object feature = Napi::Object::New(env);
    feature.Set("name", features[i].name);
    feature.Set("usable", features[i].usable);
    feature.Set("detail", features[i].detail);
    list.Set(i, feature);
  }
  return list;
}

} // namespace

void exportProbe(Napi::Env env, Napi::Object exports) {
  exports.Set("interface", kInterface);
  exports.Set("version", MOONCAKE_VERSION);
  exports.Set("probe", Napi::Function::New(env, probe, "probe"));
}

} // namespace mooncake::binding
