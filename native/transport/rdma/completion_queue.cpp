#include "transport/rdma/completion_queue.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>

namespace mooncake::rdma {

namespace {

using Steady = std::chrono::steady_clock;

constexpr int TICK_MS = 20;
constexpr int POLLED = 64;
/** Looks in a row before calls and ticks have their turn. */
constexpr int MAX_LOOKS = 16;

}  // namespace

Expected<std::unique_ptr<CompletionQueue>> CompletionQueue::create(Verbs& verbs, ibv_context* context,
                                                                   std::chrono::microseconds spin,
                                                                   std::function<void()> onDeviceEvent) {
  std::unique_ptr<CompletionQueue> queue(new CompletionQueue(verbs, context, spin, std::move(onDeviceEvent)));
  if (Status status = queue->begin(); !status.ok()) return status;
  return queue;
}

Status CompletionQueue::begin() {
  channel_ = verbs_.createCompChannel(context_);
  if (channel_ == nullptr) return systemError("ibv_create_comp_channel", errno);
  // Not every device has that many.
  while ((cq_ = verbs_.createCq(context_, static_cast<int>(entries_), channel_)) == nullptr && entries_ > 1024) entries_ /= 2;
  if (cq_ == nullptr) return systemError("ibv_create_cq with " + std::to_string(entries_) + " entries", errno);
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  event_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (epoll_ < 0 || event_ < 0) return systemError("epoll and eventfd", errno);
  for (const int fd : {event_, channel_->fd, context_->async_fd}) {
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    wanted.data.fd = fd;
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &wanted) != 0) return systemError("epoll_ctl", errno);
  }
  thread_ = std::thread([this] { serve(); });
  return {};
}

void CompletionQueue::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  if (!thread_.joinable()) return;
  called_ = true;
  wake();
  thread_.join();
  left_.clear();
  tickers_.clear();
}

CompletionQueue::~CompletionQueue() {
  stop();
  if (cq_ != nullptr && unacknowledged_ > 0) verbs_.ackCqEvents(cq_, unacknowledged_);
  if (cq_ != nullptr) verbs_.destroyCq(cq_);
  if (channel_ != nullptr) verbs_.destroyCompChannel(channel_);
  if (epoll_ >= 0) ::close(epoll_);
  if (event_ >= 0) ::close(event_);
}

void CompletionQueue::wake() {
  const u64 one = 1;
  static_cast<void>(::write(event_, &one, sizeof one));
}

void CompletionQueue::post(std::function<void()> call) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    calls_.push_back(std::move(call));
  }
  if (!called_.exchange(true)) wake();
}

void CompletionQueue::run(const std::function<void()>& call) {
  std::mutex mutex;
  std::condition_variable done;
  bool over = false;
  {
    std::unique_lock lock(mutex_);
    if (stopping_ || std::this_thread::get_id() == thread_.get_id()) {
      lock.unlock();
      return call();
    }
    calls_.push_back([&] {
      call();
      const std::lock_guard guard(mutex);
      over = true;
      done.notify_one();
    });
  }
  if (!called_.exchange(true)) wake();
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return over; });
}

u32 CompletionQueue::seat(std::shared_ptr<Poster> poster) {
  u32 place = 0;
  if (!freeSeats_.empty()) {
    place = freeSeats_.back();
    freeSeats_.pop_back();
  } else if (seats_.size() < SEATS) {
    place = static_cast<u32>(seats_.size());
    seats_.emplace_back();
  } else {
    return 0;
  }
  Seat& seat = seats_[place];
  seat.poster = std::move(poster);
  // Never 0, so that no seat's number is.
  if (++seat.taken == 0) seat.taken = 1;
  return u32{seat.taken} << 16 | place;
}

void CompletionQueue::unseat(u32 number) {
  const u32 place = number & 0xffff;
  left_.push_back(std::move(seats_[place].poster));
  freeSeats_.push_back(place);
}

void CompletionQueue::tickAll() {
  const Steady::time_point now = Steady::now();
  now_.store(now, std::memory_order_relaxed);
  lastTick_ = now;
  // A tick may end tickers, or begin some.
  const std::vector<std::shared_ptr<Ticker>> tickers = tickers_;
  for (const auto& ticker : tickers) ticker->tick(now);
}

void CompletionQueue::unwatch(const Ticker* ticker) {
  std::erase_if(tickers_, [ticker](const auto& each) { return each.get() == ticker; });
}

bool CompletionQueue::poll() {
  std::array<ibv_wc, POLLED> completions;
  const int count = context_->ops.poll_cq(cq_, POLLED, completions.data());
  if (count <= 0) return false;
  now_.store(Steady::now(), std::memory_order_relaxed);
  for (std::span<const ibv_wc> left{completions.data(), static_cast<size_t>(count)}; !left.empty();) {
    const u32 number = static_cast<u32>(left.front().wr_id >> 32);
    size_t run = 1;
    while (run < left.size() && static_cast<u32>(left[run].wr_id >> 32) == number) run++;
    const u32 place = number & 0xffff;
    if (place < seats_.size() && seats_[place].taken == number >> 16) {
      if (Poster* const poster = seats_[place].poster.get()) poster->completed(left.first(run));
    }
    left = left.subspan(run);
  }
  return true;
}

void CompletionQueue::runCalls() {
  called_ = false;
  std::vector<std::function<void()>> calls;
  {
    const std::lock_guard lock(mutex_);
    calls.swap(calls_);
  }
  for (const auto& call : calls) call();
}

bool CompletionQueue::sleep() {
  // Armed first, then looked at once more: what came between the two is not missed.
  context_->ops.req_notify_cq(cq_, 0);
  if (poll() || called_) return true;
  std::array<epoll_event, 4> events;
  const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), TICK_MS);
  bool work = false;
  for (int i = 0; i < count; i++) {
    const int fd = events[static_cast<size_t>(i)].data.fd;
    if (fd == event_) {
      u64 seen = 0;
      static_cast<void>(::read(event_, &seen, sizeof seen));
      work = true;
    } else if (fd == channel_->fd) {
      ibv_cq* cq = nullptr;
      while (verbs_.getCqEvent(channel_, &cq) == 0) unacknowledged_++;
      // Acknowledging takes a lock in the library: seldom.
      if (unacknowledged_ >= 256) verbs_.ackCqEvents(cq_, std::exchange(unacknowledged_, 0u));
      work = true;
    } else {
      onDeviceEvent_();
    }
  }
  return work;
}

void CompletionQueue::serve() {
  for (;;) {
    int looks = 0;
    while (looks < MAX_LOOKS && poll()) looks++;
    if (called_) runCalls();
    left_.clear();
    if (Steady::now() - lastTick_ >= std::chrono::milliseconds(TICK_MS)) tickAll();
    {
      const std::lock_guard lock(mutex_);
      if (stopping_ && calls_.empty()) return;
    }
    if (looks == 0) spinner_.wait([this] { return poll() || called_; }, [this] { return sleep(); });
  }
}

}  // namespace mooncake::rdma
