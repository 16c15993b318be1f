#include "binding/engine.h"

#include "binding/exports.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <system_error>

namespace mooncake::binding {

namespace {

/** Work that blocks, on a thread of libuv's pool; `after` runs on JavaScript's. */
class Background final : public Napi::AsyncWorker {
 public:
  Background(Napi::Env env, std::function<void()> work, std::function<void()> after)
      : AsyncWorker(env), work_(std::move(work)), after_(std::move(after)) {}

 private:
  void Execute() override { work_(); }
  void OnOK() override { after_(); }

  const std::function<void()> work_;
  const std::function<void()> after_;
};

Napi::Object settingsOf(Napi::Env env, const Settings& settings) {
  Napi::Object result = Napi::Object::New(env);
  for (const auto& [key, value] : settings) result.Set(key, value);
  return result;
}

}  // namespace

Napi::Function EngineObject::define(Napi::Env env) {
  return DefineClass(env, "Engine",
                     {
                         InstanceMethod<&EngineObject::allocate>("allocate"),
                         InstanceMethod<&EngineObject::registerView>("registerView"),
                         InstanceMethod<&EngineObject::registerAddress>("registerAddress"),
                         InstanceMethod<&EngineObject::registerDmabuf>("registerDmabuf"),
                         InstanceMethod<&EngineObject::openFile>("openFile"),
                         InstanceMethod<&EngineObject::allocateDevice>("allocateDevice"),
                         InstanceMethod<&EngineObject::registerDevice>("registerDevice"),
                         InstanceMethod<&EngineObject::importDevice>("importDevice"),
                         InstanceMethod<&EngineObject::exportDevice>("exportDevice"),
                         InstanceMethod<&EngineObject::allocateVirtual>("allocateVirtual"),
                         InstanceMethod<&EngineObject::mapDevice>("mapDevice"),
                         InstanceMethod<&EngineObject::exportDescriptor>("exportDescriptor"),
                         InstanceMethod<&EngineObject::createEvent>("createEvent"),
                         InstanceMethod<&EngineObject::openEvent>("openEvent"),
                         InstanceMethod<&EngineObject::exportEvent>("exportEvent"),
                         InstanceMethod<&EngineObject::closeEvent>("closeEvent"),
                         InstanceMethod<&EngineObject::unregister>("unregister"),
                         InstanceMethod<&EngineObject::listen>("listen"),
                         InstanceMethod<&EngineObject::reply>("reply"),
                         InstanceMethod<&EngineObject::expose>("expose"),
                         InstanceMethod<&EngineObject::accept>("accept"),
                         InstanceMethod<&EngineObject::shaken>("shaken"),
                         InstanceMethod<&EngineObject::openPeer>("openPeer"),
                         InstanceMethod<&EngineObject::setSegments>("setSegments"),
                         InstanceMethod<&EngineObject::closePeer>("closePeer"),
                         InstanceMethod<&EngineObject::submit>("submit"),
                         InstanceMethod<&EngineObject::cancel>("cancel"),
                         InstanceMethod<&EngineObject::statistics>("statistics"),
                         InstanceMethod<&EngineObject::close>("close"),
                         InstanceAccessor<&EngineObject::generation>("generation"),
                     });
}

EngineObject::EngineObject(Info info) : ObjectWrap(info) {
  Arguments arguments(info);
  const Napi::Object given = arguments.object(0, "options");
  EngineOptions options;
  options.copyThreads = static_cast<u32>(arguments.property(given, "copyThreads", 0, 64));
  options.maxBatches = static_cast<u32>(arguments.property(given, "maxBatches", options.maxBatches, 1 << 20));
  options.gpuShare = std::clamp(arguments.property(given, "gpuShare", options.gpuShare), 0.0, 1.0);
  options.spinUs = static_cast<u32>(arguments.property(given, "spinUs", options.spinUs, 10'000));
  if (const Napi::Value names = given.Get("transports"); names.IsArray()) {
    const Napi::Array list = names.As<Napi::Array>();
    for (u32 i = 0; i < list.Length(); i++) options.transports.push_back(list.Get(i).ToString().Utf8Value());
  }
  const Napi::Value onCompletions = given.Get("onCompletions");
  const Napi::Value onHandshake = given.Get("onHandshake");
  const Napi::Value onShake = given.Get("onShake");
  if (!arguments.ok()) arguments.refuse();
  if (!onCompletions.IsFunction()) {
    refuse(info.Env(), {Code::invalidArgument, "options.onCompletions is not a function"});
  }
  onCompletions_ = Napi::Persistent(onCompletions.As<Napi::Function>());
  mailbox_->open(info.Env(), [this](Napi::Env env, const auto& ended) { deliver(env, ended); });
  try {
    engine_ = std::make_shared<Engine>(std::move(options));
  } catch (const std::system_error& error) {
    refuse(info.Env(), {Code::system, std::string("a thread: ") + error.what()});
  }
  // After the mailbox, whose own hook must run later.
  napi_add_env_cleanup_hook(info.Env(), teardown, this);
  if (onHandshake.IsFunction()) answerHandshakes(onHandshake.As<Napi::Function>());
  if (onShake.IsFunction()) carryShakes(onShake.As<Napi::Function>());
  // Until it is closed, or its environment ends: whoever drops an open engine has batches under way.
  Ref();
}

void EngineObject::teardown(void* self) { static_cast<EngineObject*>(self)->shut(); }

void EngineObject::shut() {
  if (!engine_) return;
  engine_->close();
  mailbox_->close();
  handshakes_->clear();
  shakes_->clear();
  engine_.reset();
}

void EngineObject::answerHandshakes(Napi::Function handler) {
  onHandshake_ = Napi::Persistent(handler);
  engine_->onHandshake([this, mailbox = mailbox_, waiting = handshakes_](u8 type, std::string json, Answered::Reply reply) {
    const u64 number = waiting->add(std::move(reply));
    if (number == 0) return;
    mailbox->post([this, number, type, json = std::move(json)](Napi::Env env) {
      if (onHandshake_.IsEmpty()) return;
      onHandshake_.Call({Napi::Number::New(env, static_cast<double>(number)), Napi::Number::New(env, type),
                         Napi::String::New(env, json)});
    });
  });
}

void EngineObject::carryShakes(Napi::Function carrier) {
  onShake_ = Napi::Persistent(carrier);
  engine_->onShake([this, mailbox = mailbox_, waiting = shakes_](const std::string& peer, Settings request, Shaken::Reply answer) {
    const u64 number = waiting->add(std::move(answer));
    if (number == 0) return;
    mailbox->post([this, number, peer, request = std::move(request)](Napi::Env env) {
      if (onShake_.IsEmpty()) return;
      onShake_.Call({Napi::Number::New(env, static_cast<double>(number)), Napi::String::New(env, peer), settingsOf(env, request)});
    });
  });
}

void EngineObject::deliver(Napi::Env env, const std::vector<Completion>& completions) {
  Napi::Array list = Napi::Array::New(env, completions.size());
  for (u32 i = 0; i < completions.size(); i++) {
    const auto& [batch, result] = completions[i];
    Napi::Object item = Napi::Object::New(env);
    item.Set("batch", static_cast<double>(batch));
    item.Set("code", static_cast<double>(result.status.code));
    item.Set("detail", result.status.detail);
    item.Set("bytes", static_cast<double>(result.bytes));
    item.Set("verifiedBytes", static_cast<double>(result.verifiedBytes));
    item.Set("milliseconds", static_cast<double>(result.nanoseconds) / 1e6);
    list.Set(i, item);
  }
  onCompletions_.Call({list});
}

void EngineObject::checkOpen(Info info) const {
  if (!engine_ || closing_) refuse(info.Env(), {Code::closed, "the engine is closed"});
}

Napi::Value EngineObject::generation(Info info) {
  char text[17] = "";
  if (engine_) std::snprintf(text, sizeof text, "%016" PRIx64, engine_->generation());
  return Napi::String::New(info.Env(), text);
}

Napi::Value EngineObject::listen(Info info) {
  Arguments arguments(info);
  const std::string transport = arguments.text(0, "transport");
  const Settings settings = arguments.settings(1, "settings");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const Expected<Settings> found = engine_->listen(transport, settings);
  if (!found.ok()) return refuse(info.Env(), found.status);
  return settingsOf(info.Env(), found.value);
}

Napi::Value EngineObject::expose(Info info) {
  Arguments arguments(info);
  const std::string transport = arguments.text(0, "transport");
  const u64 segment = arguments.count(1, "segment", UINT32_MAX);
  const Napi::Function done = arguments.function(2, "done");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const auto callback = std::make_shared<Napi::FunctionReference>(Napi::Persistent(done));
  const auto found = std::make_shared<Expected<std::vector<SegmentKey>>>(std::vector<SegmentKey>());
  auto* const worker = new Background(
      info.Env(),
      [engine = engine_, transport, segment, found] { *found = engine->expose(transport, static_cast<u32>(segment)); },
      [callback, found] {
        const Napi::Env env = callback->Env();
        if (!found->ok()) {
          callback->Call({Napi::Number::New(env, static_cast<double>(found->status.code)), Napi::String::New(env, found->status.detail)});
          return;
        }
        Napi::Array local = Napi::Array::New(env);
        Napi::Array remote = Napi::Array::New(env);
        std::string refusals;
        for (u32 i = 0; i < found->value.size(); i++) {
          local.Set(i, found->value[i].local);
          remote.Set(i, found->value[i].remote);
          const std::string& refusal = found->value[i].refusal;
          if (!refusal.empty()) refusals += (refusals.empty() ? "" : "; ") + refusal;
        }
        callback->Call({Napi::Number::New(env, 0), local, remote, Napi::String::New(env, refusals)});
      });
  worker->Queue();
  return info.Env().Undefined();
}

Napi::Value EngineObject::accept(Info info) {
  Arguments arguments(info);
  const std::string transport = arguments.text(0, "transport");
  const Settings request = arguments.settings(1, "request");
  const Napi::Function done = arguments.function(2, "done");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const auto callback = std::make_shared<Napi::FunctionReference>(Napi::Persistent(done));
  const auto said = std::make_shared<Settings>();
  auto* const worker = new Background(
      info.Env(), [engine = engine_, transport, request, said] { *said = engine->accept(transport, request); },
      [callback, said] { callback->Call({settingsOf(callback->Env(), *said)}); });
  worker->Queue();
  return info.Env().Undefined();
}

Napi::Value EngineObject::shaken(Info info) {
  Arguments arguments(info);
  const u64 number = arguments.count(0, "shake");
  const bool answered = info[1].IsObject();
  const Settings answer = answered ? arguments.settings(1, "answer") : Settings();
  const std::string why = answered ? "" : arguments.text(1, "why");
  if (!arguments.ok()) return arguments.refuse();
  const Shaken::Reply reply = shakes_->take(number);
  if (!reply || !engine_) return info.Env().Undefined();
  if (answered) reply(answer);
  else reply(Status(Code::peer, why));
  return info.Env().Undefined();
}

Napi::Value EngineObject::reply(Info info) {
  Arguments arguments(info);
  const u64 number = arguments.count(0, "handshake");
  std::string json = arguments.text(1, "json");
  if (!arguments.ok()) return arguments.refuse();
  // Too late is no error: the peer has gone on.
  if (const Answered::Reply answer = handshakes_->take(number); answer && engine_) answer(std::move(json));
  return info.Env().Undefined();
}

Napi::Value EngineObject::openPeer(Info info) {
  Arguments arguments(info);
  const std::string name = arguments.text(0, "name");
  const std::string generationText = arguments.text(1, "generation");
  const std::vector<PeerEndpoint> endpoints = arguments.endpoints(2, "endpoints");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  const Expected<u32> peer = engine_->openPeer(name, std::strtoull(generationText.c_str(), nullptr, 16), endpoints);
  if (!peer.ok()) return refuse(info.Env(), peer.status);
  return Napi::Number::New(info.Env(), peer.value);
}

Napi::Value EngineObject::setSegments(Info info) {
  Arguments arguments(info);
  const u64 peer = arguments.count(0, "peer", UINT32_MAX);
  const std::vector<RemoteSegment> segments = arguments.segments(1, "segments");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  engine_->setSegments(static_cast<u32>(peer), segments);
  return info.Env().Undefined();
}

Napi::Value EngineObject::closePeer(Info info) {
  Arguments arguments(info);
  const u64 peer = arguments.count(0, "peer", UINT32_MAX);
  if (!arguments.ok()) return arguments.refuse();
  if (!engine_ || closing_) return info.Env().Undefined();
  auto* const worker = new Background(
      info.Env(), [engine = engine_, peer] { engine->closePeer(static_cast<u32>(peer)); }, [] {});
  worker->Queue();
  return info.Env().Undefined();
}

Napi::Value EngineObject::submit(Info info) {
  Arguments arguments(info);
  const u64 op = arguments.count(0, "op", static_cast<u64>(Op::copy));
  const u64 peer = arguments.count(1, "peer", UINT32_MAX);
  BatchSpec spec;
  spec.records = arguments.descriptors(2, "descriptors");
  const u64 timeout = arguments.count(3, "timeoutMs", UINT32_MAX);
  spec.verify = arguments.flag(4, "verify");
  // What only copies with memory of GPUs have.
  if (info.Length() > 5) {
    const Napi::Object with = arguments.object(5, "device");
    spec.waits = arguments.numbers(with, "waitFor");
    spec.signals = arguments.numbers(with, "record");
    spec.repeat.count = static_cast<u32>(arguments.property(with, "count", 1, UINT32_MAX));
    spec.repeat.sourceStride = arguments.property(with, "sourceStride", 0, u64{1} << 53);
    spec.repeat.destinationStride = arguments.property(with, "destinationStride", 0, u64{1} << 53);
  }
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  spec.op = static_cast<Op>(op);
  spec.peer = static_cast<u32>(peer);
  spec.deadline = Clock::now() + std::chrono::milliseconds(timeout);
  const Expected<u64> batch = engine_->submit(std::move(spec), [mailbox = mailbox_](u64 number, BatchResult result) {
    mailbox->post(Completion{number, std::move(result)});
  });
  if (!batch.ok()) return refuse(info.Env(), batch.status);
  // It may have ended; JavaScript hears of it later in any case.
  mailbox_->await(info.Env());
  return Napi::Number::New(info.Env(), static_cast<double>(batch.value));
}

Napi::Value EngineObject::cancel(Info info) {
  Arguments arguments(info);
  const u64 batch = arguments.count(0, "batch");
  if (!arguments.ok()) return arguments.refuse();
  if (engine_ && !closing_) engine_->cancel(batch);
  return info.Env().Undefined();
}

Napi::Value EngineObject::statistics(Info info) {
  checkOpen(info);
  return Napi::String::New(info.Env(), engine_->statistics());
}

Napi::Value EngineObject::close(Info info) {
  Arguments arguments(info);
  const Napi::Function closed = arguments.function(0, "closed");
  if (!arguments.ok()) return arguments.refuse();
  checkOpen(info);
  closing_ = true;
  onClosed_ = Napi::Persistent(closed);
  const auto after = [this] {
    const Napi::Env env = Env();
    mailbox_->drain(env);
    napi_remove_env_cleanup_hook(env, teardown, this);
    shut();
    const Napi::Function told = onClosed_.Value();
    onClosed_.Reset();
    // Their Function objects may refer to this one: let go, or neither is ever collected.
    onCompletions_.Reset();
    onHandshake_.Reset();
    onShake_.Reset();
    views_.clear();
    Unref();
    told.Call({});
  };
  auto* const worker = new Background(info.Env(), [engine = engine_] { engine->close(); }, after);
  worker->Queue();
  return info.Env().Undefined();
}

void exportEngine(Napi::Env env, Napi::Object exports) { exports.Set("Engine", EngineObject::define(env)); }

}  // namespace mooncake::binding
