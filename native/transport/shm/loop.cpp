#include "transport/shm/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <system_error>

namespace mooncake::shm {

namespace {

using namespace std::chrono;

constexpr int TICK_MILLISECONDS = 100;

u64 keyOf(int fd, u64 number) { return (number << 32) | static_cast<u32>(fd); }

}  // namespace

Expected<std::shared_ptr<Loop>> Loop::start(microseconds spin) {
  std::shared_ptr<Loop> loop(new Loop(spin));
  loop->epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  loop->event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->epoll_ || !loop->event_) return systemError("epoll", errno);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = keyOf(loop->event_.get(), 0);
  if (::epoll_ctl(loop->epoll_.get(), EPOLL_CTL_ADD, loop->event_.get(), &event) != 0) return systemError("epoll", errno);
  try {
    loop->thread_ = std::thread([raw = loop.get()] { raw->serve(); });
  } catch (const std::system_error& error) {
    return systemError("thread", error.code().value());
  }
  return loop;
}

Loop::~Loop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  const u64 one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
  thread_.join();
}

void Loop::post(std::function<void()> call) {
  bool first;
  {
    const std::lock_guard lock(mutex_);
    first = calls_.empty();
    calls_.push_back(std::move(call));
  }
  const u64 one = 1;
  if (first) [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
}

void Loop::run(const std::function<void()>& call) {
  std::mutex mutex;
  std::condition_variable ended;
  bool done = false;
  post([&] {
    call();
    // Told under the lock: the waiter's frame is gone as soon as it sees `done`.
    const std::lock_guard lock(mutex);
    done = true;
    ended.notify_one();
  });
  std::unique_lock lock(mutex);
  ended.wait(lock, [&] { return done; });
}

Status Loop::watch(int fd, u32 events, Handler handler) {
  const auto watched = std::make_shared<Watched>(Watched{nextNumber_++, std::move(handler)});
  epoll_event event{};
  event.events = events;
  event.data.u64 = keyOf(fd, watched->number);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return systemError("epoll_ctl", errno);
  watched_[fd] = watched;
  return {};
}

void Loop::change(int fd, u32 events) {
  const auto found = watched_.find(fd);
  if (found == watched_.end()) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = keyOf(fd, found->second->number);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Loop::unwatch(int fd) {
  if (watched_.erase(fd) > 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void Loop::tick(const void* owner, Ticker ticker) { tickers_[owner] = std::move(ticker); }
void Loop::untick(const void* owner) { tickers_.erase(owner); }

void Loop::serve() {
  epoll_event events[64];
  auto ticked = steady_clock::now();
  for (;;) {
    const bool ticking = !tickers_.empty();
    int count = 0;
    const auto waitFor = [&](int time) {
      count = ::epoll_wait(epoll_.get(), events, 64, time);
      return count > 0;
    };
    spinner_.wait([&] { return waitFor(0); }, [&] { return waitFor(ticking ? TICK_MILLISECONDS : -1); });
    if (count < 0 && errno != EINTR) return;
    for (int i = 0; i < count; i++) {
      const int fd = static_cast<int>(events[i].data.u64 & 0xffffffff);
      const u64 number = events[i].data.u64 >> 32;
      if (number == 0) {
        u64 value = 0;
        [[maybe_unused]] const ssize_t read = ::read(event_.get(), &value, sizeof value);
        continue;
      }
      const auto found = watched_.find(fd);
      if (found == watched_.end() || found->second->number != number) continue;
      const std::shared_ptr<Watched> watched = found->second;
      watched->handler(events[i].events);
    }
    runCalls();
    const auto now = steady_clock::now();
    if (!ticking) {
      ticked = now;
    } else if (const auto passed = duration_cast<milliseconds>(now - ticked).count(); passed >= TICK_MILLISECONDS) {
      ticked = now;
      const auto copy = tickers_;
      for (const auto& [owner, ticker] : copy) {
        if (tickers_.count(owner) > 0) ticker(static_cast<u32>(std::min<long>(passed, 2 * TICK_MILLISECONDS)));
      }
    }
    const std::lock_guard lock(mutex_);
    if (stopping_ && calls_.empty()) return;
  }
}

void Loop::runCalls() {
  std::vector<std::function<void()>> calls;
  {
    const std::lock_guard lock(mutex_);
    calls.swap(calls_);
  }
  for (const auto& call : calls) call();
}

}  // namespace mooncake::shm
