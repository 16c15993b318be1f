// The completion queue of a device and the thread that serves it. The thread polls while there is work at short intervals, and
// sleeps on the completion channel otherwise; it also hears the device's events, runs calls that others hand to it, and ticks.
//
// A work request is named by 64 bits: who posted it (a seat in the table of endpoints, and how often that seat was taken) and
// a number of his own. A completion that comes after its endpoint has gone finds the seat empty, or taken by another: it is dropped.
#pragma once

#include "transport/rdma/verbs.h"
#include "transport/spinner.h"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace mooncake::rdma {

/** Who posts work requests; called on the thread. */
class Poster {
 public:
  virtual ~Poster() = default;
  /** In order, those of one look at the queue together; the low 32 bits of their numbers are the poster's own. */
  virtual void completed(std::span<const ibv_wc> completions) = 0;
};

/** Who has deadlines; called on the thread when some milliseconds have passed, and when the device had an event. */
class Ticker {
 public:
  virtual ~Ticker() = default;
  virtual void tick(std::chrono::steady_clock::time_point now) = 0;
};

class CompletionQueue {
 public:
  static Expected<std::unique_ptr<CompletionQueue>> create(Verbs& verbs, ibv_context* context, std::chrono::microseconds spin,
                                                           std::function<void()> onDeviceEvent);
  ~CompletionQueue();
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;

  ibv_cq* get() const { return cq_; }

  /** Runs a call on the thread, soon and in order. From any thread; without effect when the queue is stopped. */
  void post(std::function<void()> call);
  /** Runs a call on the thread and waits for it; directly where this is the thread, or there is none any more. */
  void run(const std::function<void()>& call);
  /** Joins the thread: after that, whoever has the last pointer to something of the device may let it go. Not from the thread.
      Idempotent. */
  void stop();

  /** On the thread: the high 32 bits of the numbers of this poster's work requests, kept until `unseat`. 0: the table is full. */
  u32 seat(std::shared_ptr<Poster> poster);
  void unseat(u32 seat);
  /** On the thread. */
  void watch(std::shared_ptr<Ticker> ticker) { tickers_.push_back(std::move(ticker)); }
  void unwatch(const Ticker* ticker);
  void tickAll();

  /** Room for the completions of so many work requests; false: there is none until others have completed. From any thread. */
  bool reserve(u32 requests) {
    if (outstanding_.fetch_add(requests, std::memory_order_relaxed) + requests <= entries_) return true;
    outstanding_.fetch_sub(requests, std::memory_order_relaxed);
    return false;
  }
  void release(u32 requests) { outstanding_.fetch_sub(requests, std::memory_order_relaxed); }

  /** The time as of the last look at the queue: cheap, and exact enough for deadlines. */
  std::chrono::steady_clock::time_point now() const { return now_.load(std::memory_order_relaxed); }

 private:
  CompletionQueue(Verbs& verbs, ibv_context* context, std::chrono::microseconds spin, std::function<void()> onDeviceEvent)
      : verbs_(verbs), context_(context), spinner_(spin), onDeviceEvent_(std::move(onDeviceEvent)) {}
  Status begin();
  void serve();
  /** Whether there were completions. */
  bool poll();
  bool sleep();
  void runCalls();
  void wake();

  static constexpr u32 SEATS = 1 << 16;

  struct Seat {
    std::shared_ptr<Poster> poster;
    u16 taken = 0;
  };

  Verbs& verbs_;
  ibv_context* const context_;
  ibv_comp_channel* channel_ = nullptr;
  ibv_cq* cq_ = nullptr;
  int epoll_ = -1;
  int event_ = -1;
  Spinner spinner_;
  const std::function<void()> onDeviceEvent_;
  std::vector<Seat> seats_;
  std::vector<u32> freeSeats_;
  /** Posters that left their seats within a call of theirs. */
  std::vector<std::shared_ptr<Poster>> left_;
  std::vector<std::shared_ptr<Ticker>> tickers_;
  u32 entries_ = 16384;
  std::atomic<u32> outstanding_{0};
  std::atomic<std::chrono::steady_clock::time_point> now_{std::chrono::steady_clock::now()};
  std::chrono::steady_clock::time_point lastTick_{};
  unsigned unacknowledged_ = 0;

  std::mutex mutex_;
  std::vector<std::function<void()>> calls_;
  std::atomic<bool> called_{false};
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace mooncake::rdma
