#include "binding/mailbox.h"

namespace mooncake::binding {

namespace {

/** False while a worker is being terminated: Node still turns its loop, but every call into JavaScript fails. */
bool canRun(napi_env env) {
  napi_value scratch = nullptr;
  return napi_create_object(env, &scratch) == napi_ok && napi_set_named_property(env, scratch, "_", scratch) == napi_ok;
}

/** What a callback of the caller throws is as uncaught as what a timer's throws. */
template <class Call>
void callBack(Napi::Env env, Call&& call) {
  try {
    call();
  } catch (const Napi::Error& error) {
    napi_fatal_exception(env, error.Value());
  }
}

}  // namespace

void Mailbox::open(Napi::Env env, Deliver deliver) {
  deliver_ = std::move(deliver);
  const Napi::String name = Napi::String::New(env, "mooncake");
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, called, &function_) !=
      napi_ok) {
    throw Napi::Error::New(env);
  }
  napi_unref_threadsafe_function(env, function_);
  open_ = true;
}

void Mailbox::post(Completion completion) {
  const std::lock_guard lock(mutex_);
  completions_.push_back(std::move(completion));
  wake();
}

void Mailbox::post(Task task) {
  const std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  wake();
}

void Mailbox::wake() {
  if (woken_ || !open_) return;
  woken_ = napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking) == napi_ok;
}

void Mailbox::called(napi_env env, napi_value, void* context, void*) {
  // Null while Node tears the environment down.
  if (env != nullptr) static_cast<Mailbox*>(context)->drain(env);
}

void Mailbox::drain(Napi::Env env) {
  const Napi::HandleScope scope(env);
  if (!canRun(env)) return;
  std::vector<Completion> completions;
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(mutex_);
    completions.swap(completions_);
    tasks.swap(tasks_);
    woken_ = false;
  }
  if (!completions.empty()) {
    arrived(env, completions.size());
    callBack(env, [&] { deliver_(env, completions); });
  }
  for (const Task& task : tasks) callBack(env, [&] { task(env); });
}

void Mailbox::close() {
  {
    const std::lock_guard lock(mutex_);
    if (!open_) return;
    open_ = false;
  }
  napi_release_threadsafe_function(function_, napi_tsfn_abort);
}

void Mailbox::await(Napi::Env env) {
  if (awaited_++ == 0) napi_ref_threadsafe_function(env, function_);
}

void Mailbox::arrived(Napi::Env env, size_t count) {
  awaited_ -= count;
  if (awaited_ == 0) napi_unref_threadsafe_function(env, function_);
}

}  // namespace mooncake::binding
