// From the engine's threads to JavaScript: what happened is gathered, and JavaScript is woken once for all that there is.
// While something is awaited the mailbox keeps Node alive; otherwise not.
#pragma once

#include "engine/batch.h"

#include <functional>
#include <mutex>
#include <napi.h>

namespace mooncake::binding {

struct Completion {
  u64 batch;
  BatchResult result;
};

class Mailbox {
 public:
  using Task = std::function<void(Napi::Env)>;
  using Deliver = std::function<void(Napi::Env, const std::vector<Completion>&)>;

  Mailbox() = default;
  ~Mailbox() { close(); }
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // On the thread of JavaScript:
  void open(Napi::Env env, Deliver deliver);
  /** Calls what is there now, and forgets what comes later. Idempotent. */
  void drain(Napi::Env env);
  void close();
  /** Something more, or less, is awaited. */
  void await(Napi::Env env);
  void arrived(Napi::Env env, size_t count);

  // From any thread:
  void post(Completion completion);
  void post(Task task);

 private:
  static void called(napi_env env, napi_value function, void* context, void* data);
  void wake();

  napi_threadsafe_function function_ = nullptr;
  Deliver deliver_;
  size_t awaited_ = 0;

  std::mutex mutex_;
  std::vector<Completion> completions_;
  std::vector<Task> tasks_;
  bool woken_ = false;
  bool open_ = false;
};

}  // namespace mooncake::binding
