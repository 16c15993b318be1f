#include "transport/tcp/loop.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <future>

namespace mooncake::tcp {

namespace {

using Clock = std::chrono::steady_clock;

/** Work comes at short intervals while the last wait was shorter than so many times `spin`: where both sides of an exchange
    have slept, most of the wait was the waking. */
constexpr int SHORT_WAIT = 4;

}  // namespace

Loop::Loop(std::chrono::microseconds spin) : spin_(spin), poll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Status Loop::start() {
  if (!poll_ || !wake_) return systemError("epoll and eventfd", errno);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0;
  if (::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) return systemError("epoll_ctl", errno);
  // The thread compares thread_ with itself: it must not run before that is set.
  std::promise<void> known;
  try {
    thread_ = std::thread([this, ready = known.get_future().share()] {
      ready.wait();
      work();
    });
  } catch (const std::system_error& error) {
    return {Code::system, std::string("a thread for TCP: ") + error.what()};
  }
  started_ = true;
  known.set_value();
  return {};
}

void Loop::stop() {
  {
    const std::lock_guard lock(mutex_);
    if (!started_ || stopping_) return;
    stopping_ = true;
  }
  const u64 one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
  thread_.join();
  watched_.clear();
  tasks_.clear();
}

bool Loop::run(Task task) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (!started_ || stopping_) return false;
    first = tasks_.empty();
    tasks_.push_back(std::move(task));
  }
  if (first) {
    const u64 one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
  }
  return true;
}

void Loop::runAndWait(const Task& task) {
  if (inside()) return task();
  std::promise<void> done;
  const bool queued = run([&] {
    task();
    done.set_value();
  });
  if (queued) {
    done.get_future().wait();
  } else {
    task();
  }
}

u64 Loop::add(std::shared_ptr<Watched> watched, int fd, u32 events) {
  const u64 name = ++lastName_;
  watched_.emplace(name, std::move(watched));
  attach(name, fd, events);
  return name;
}

void Loop::change(u64 name, int fd, u32 events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = name;
  ::epoll_ctl(poll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Loop::attach(u64 name, int fd, u32 events) {
  if (fd < 0) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = name;
  ::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void Loop::forget(int fd) { ::epoll_ctl(poll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

void Loop::remove(u64 name) { watched_.erase(name); }

void Loop::runTasks() {
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  for (Task& task : tasks) task();
}

void Loop::tickAll() {
  lastTick_ = now_;
  std::vector<std::shared_ptr<Watched>> all;
  all.reserve(watched_.size());
  for (const auto& [name, watched] : watched_) all.push_back(watched);
  busy_ = false;
  for (const auto& watched : all) busy_ = watched->tick() || busy_;
}

int Loop::await(epoll_event* events, int most, int milliseconds) {
  if (spin_.count() == 0) return ::epoll_wait(poll_.get(), events, most, milliseconds);
  const Clock::time_point began = Clock::now();
  int count = 0;
  while (spinning_ && count == 0) {
    count = ::epoll_wait(poll_.get(), events, most, 0);
    spinning_ = Clock::now() - began < spin_;
    if (spinning_ && count == 0) ::sched_yield();
  }
  if (count == 0) count = ::epoll_wait(poll_.get(), events, most, milliseconds);
  spinning_ = count > 0 && Clock::now() - began < SHORT_WAIT * spin_;
  return count;
}

void Loop::work() {
  using Milliseconds = std::chrono::milliseconds;
  std::array<epoll_event, 64> events;
  auto before = Clock::now();
  for (;;) {
    const u64 interval = busy_ ? TICK_MS : IDLE_TICK_MS;
    const u64 due = std::max(lastTick_ + interval, now_) - now_;
    const int wait = watched_.empty() ? -1 : static_cast<int>(due);
    const int count = await(events.data(), static_cast<int>(events.size()), wait);
    const auto after = Clock::now();
    const u64 passed = static_cast<u64>(std::chrono::duration_cast<Milliseconds>(after - before).count());
    before += Milliseconds(passed);
    // A round that took longer than it waited and a tick was not spent listening: peers were not given the chance to speak.
    now_ += std::min(passed, (wait < 0 ? 0 : static_cast<u64>(wait)) + TICK_MS);
    for (int i = 0; i < count; i++) {
      // epoll_event is packed: its fields are not to be bound to references.
      const u64 id = events[i].data.u64;
      if (id == 0) {
        u64 counted;
        [[maybe_unused]] const ssize_t read = ::read(wake_.get(), &counted, sizeof counted);
        continue;
      }
      // Held while it runs: it may remove itself. Removed by one before it in this round: not called.
      const auto found = watched_.find(id);
      if (found == watched_.end()) continue;
      const std::shared_ptr<Watched> watched = found->second;
      watched->ready(events[i].events);
    }
    bool stopping = false;
    {
      const std::lock_guard lock(mutex_);
      stopping = stopping_;
    }
    // Nothing is queued any more once stopping_ is set: whoever waits for a task is served.
    runTasks();
    if (stopping) return;
    if (now_ >= lastTick_ + (busy_ ? TICK_MS : IDLE_TICK_MS)) tickAll();
  }
}

}  // namespace mooncake::tcp
