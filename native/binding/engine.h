// The Engine object of JavaScript: NativeEngine of src/native/addon.ts. One for each engine; it owns nothing static, so that
// every worker thread of a process may load the addon.
#pragma once

#include "binding/arguments.h"
#include "binding/handshakes.h"
#include "binding/mailbox.h"

namespace mooncake::binding {

class EngineObject final : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function define(Napi::Env env);

  explicit EngineObject(const Napi::CallbackInfo& info);
  ~EngineObject() override { shut(); }

 private:
  using Info = const Napi::CallbackInfo&;

  Napi::Value generation(Info info);
  Napi::Value allocate(Info info);
  Napi::Value registerView(Info info);
  Napi::Value registerAddress(Info info);
  Napi::Value openFile(Info info);
  Napi::Value allocateDevice(Info info);
  Napi::Value registerDmabuf(Info info);
  Napi::Value registerDevice(Info info);
  Napi::Value importDevice(Info info);
  Napi::Value exportDevice(Info info);
  Napi::Value allocateVirtual(Info info);
  Napi::Value mapDevice(Info info);
  Napi::Value exportDescriptor(Info info);
  Napi::Value createEvent(Info info);
  Napi::Value openEvent(Info info);
  Napi::Value exportEvent(Info info);
  Napi::Value closeEvent(Info info);
  Napi::Value unregister(Info info);
  Napi::Value listen(Info info);
  Napi::Value reply(Info info);
  Napi::Value expose(Info info);
  Napi::Value accept(Info info);
  Napi::Value shaken(Info info);
  Napi::Value openPeer(Info info);
  Napi::Value setSegments(Info info);
  Napi::Value closePeer(Info info);
  Napi::Value submit(Info info);
  Napi::Value cancel(Info info);
  Napi::Value statistics(Info info);
  Napi::Value close(Info info);

  static void teardown(void* self);
  void answerHandshakes(Napi::Function handler);
  void carryShakes(Napi::Function carrier);
  void deliver(Napi::Env env, const std::vector<Completion>& completions);
  Expected<u32> add(u64 address, u64 length, bool writable);
  /** JavaScript's part of a release: the view is let go, `released` is called. */
  void released(Napi::Env env, u32 id);
  /** Ends everything on this thread: no JavaScript runs any more. Idempotent. */
  void shut();
  /** Throws where it is closed. */
  void checkOpen(Info info) const;

  // Shared with threads that may still be about to post or reply when this object goes.
  std::shared_ptr<Engine> engine_;
  std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  using Answered = Handshakes<std::string>;
  using Shaken = Handshakes<Expected<Settings>>;
  std::shared_ptr<Answered> handshakes_ = std::make_shared<Answered>();
  std::shared_ptr<Shaken> shakes_ = std::make_shared<Shaken>();

  Napi::FunctionReference onCompletions_;
  Napi::FunctionReference onHandshake_;
  Napi::FunctionReference onShake_;
  /** By segment: what is registered of JavaScript's, and who waits for its release. */
  std::map<u32, Napi::ObjectReference> views_;
  std::map<u32, Napi::FunctionReference> unregistering_;
  Napi::FunctionReference onClosed_;
  bool closing_ = false;
};

}  // namespace mooncake::binding
