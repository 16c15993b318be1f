// The thread that speaks with local peers: sockets, a queue of calls from other threads, and a tick. It copies nothing,
// so that it answers at once however busy the copy threads are.
#pragma once

#include "engine/fd.h"
#include "engine/status.h"
#include "transport/spinner.h"

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace mooncake::shm {

class Loop {
 public:
  using Handler = std::function<void(u32 events)>;
  /** Told how many milliseconds passed in which this thread could run: a tick that came very late counts as one, so that
      a process that was stopped does not find everybody else silent. */
  using Ticker = std::function<void(u32 milliseconds)>;

  /** `spin`: see spinner.h. */
  static Expected<std::shared_ptr<Loop>> start(std::chrono::microseconds spin);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /** Runs a call on the thread, in order. From any thread. */
  void post(std::function<void()> call);
  /** Runs a call on the thread and waits for it. Not from the thread itself. */
  void run(const std::function<void()>& call);

  // The rest is for calls that run on the thread.

  /** Calls `handler` with epoll events until unwatch. */
  Status watch(int fd, u32 events, Handler handler);
  void change(int fd, u32 events);
  void unwatch(int fd);
  void tick(const void* owner, Ticker ticker);
  void untick(const void* owner);

 private:
  struct Watched {
    u64 number;
    Handler handler;
  };

  explicit Loop(std::chrono::microseconds spin) : spinner_(spin) {}
  void serve();
  void runCalls();

  Spinner spinner_;
  Fd epoll_;
  Fd event_;
  std::mutex mutex_;
  std::vector<std::function<void()>> calls_;
  bool stopping_ = false;
  /** By fd; numbers tell an event of a closed descriptor from one of its successor. */
  std::map<int, std::shared_ptr<Watched>> watched_;
  u32 nextNumber_ = 1;
  std::map<const void*, Ticker> tickers_;
  std::thread thread_;
};

}  // namespace mooncake::shm
