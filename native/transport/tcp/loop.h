// A thread that waits for sockets (epoll, level-triggered), runs tasks of other threads, and ticks. Whatever is registered
// is kept alive by the loop until it is removed; its calls come on the loop's thread alone.
//
// A thread that sleeps, on a processor that then halts, takes 15 to 25 us to wake up: more than a small request takes in all.
// So a loop whose work comes at short intervals looks for more during `spin` before it sleeps, and lets others have the
// processor between two looks.
#pragma once

#include "transport/tcp/socket.h"

#include <sys/epoll.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

namespace mooncake::tcp {

class Watched {
 public:
  virtual ~Watched() = default;
  /** `events` as of epoll. The socket may have been read by an earlier call of the same round: expect EAGAIN. */
  virtual void ready(u32 events) = 0;
  /** Every some TICK_MS while somebody is busy, at longer intervals otherwise. True: busy. */
  virtual bool tick() = 0;
};

class Loop : public std::enable_shared_from_this<Loop> {
 public:
  using Task = std::function<void()>;

  static constexpr u64 TICK_MS = 50;
  static constexpr u64 IDLE_TICK_MS = 250;

  /** `spin` 0: sleeps at once. */
  explicit Loop(std::chrono::microseconds spin = {});
  ~Loop() { stop(); }

  Status start();
  /** Runs what is queued, ends the thread, and lets go of what is registered. Idempotent; not from the loop itself. */
  void stop();

  /** Runs a task on the loop's thread, soon. From any thread; false: the loop has ended. */
  bool run(Task task);
  /** Runs it there and waits; at once where the caller is the loop. Where the loop has ended, here. */
  void runAndWait(const Task& task);
  bool inside() const { return std::this_thread::get_id() == thread_.get_id(); }

  /** Milliseconds in which the loop ran: while the process is stopped or starved, this clock stands. Loop thread. */
  u64 now() const { return now_; }

  /** Begins to watch; `fd` may be -1, for ticks alone. Returns what names it. Loop thread. */
  u64 add(std::shared_ptr<Watched> watched, int fd, u32 events);
  /** Which events to wait for. From any thread that knows `fd` to be open. */
  void change(u64 name, int fd, u32 events);
  /** Another socket (-1: none) for what is watched already. The old one must have been closed by `forget`. Loop thread. */
  void attach(u64 name, int fd, u32 events);
  /** Before a socket is closed. Loop thread. */
  void forget(int fd);
  void remove(u64 name);

 private:
  void work();
  /** epoll_wait; so many milliseconds, -1: for ever. */
  int await(epoll_event* events, int most, int milliseconds);
  void runTasks();
  void tickAll();

  const std::chrono::microseconds spin_;
  bool spinning_ = false;
  Fd poll_;
  Fd wake_;
  std::thread thread_;
  std::mutex mutex_;
  std::vector<Task> tasks_;
  bool started_ = false;
  bool stopping_ = false;
  std::unordered_map<u64, std::shared_ptr<Watched>> watched_;
  u64 lastName_ = 0;
  u64 now_ = 0;
  u64 lastTick_ = 0;
  bool busy_ = false;
};

}  // namespace mooncake::tcp
