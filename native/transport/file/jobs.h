// The slices that the file link has, as jobs of steps, in the order in which they came. Runners take steps
// from it and hand back their ends; a job settles when its last step ended and no further one will begin.
#pragma once

#include "transport/file/plan.h"
#include "transport/transport.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <unordered_map>

namespace mooncake::file {

struct Job {
  Slice& slice;
  std::vector<Step> steps;

  explicit Job(Slice& of) : slice(of) {}

private:
  friend class Jobs;
  u32 begun_ = 0;
  u32 ended_ = 0;
  Status status_;
};

/** Safe from any thread; settles without holding its lock, since the engine may post again from there. */
class Jobs {
public:
  explicit Jobs(LinkEvents& events) : events_(events) {}

  /** A job to run; after `stop` it settles at once. */
  void push(std::unique_ptr<Job> job);

  struct Taken {
    Job* job = nullptr;
    const Step* step = nullptr;
  };

  /** The next step; none where there is none, or where it needs a bounce buffer that the caller has not. */
  Taken take(bool bounce);

  /** The next step, waited for; none after `stop`. */
  Taken wait();

  /** A step that was taken ended. */
  void ended(Job& job, const Status& status);

  /** No further step of the batch's slices begins; each settles with `aborted` when those under way have
   * ended. */
  void cancel(const Batch& batch);

  /** The same for all, with that status, and for what is pushed from now on. Idempotent. */
  void stop(Status status);

  /** Why it was stopped; ok while it was not. */
  Status why() const;

private:
  using Settling = std::vector<std::unique_ptr<Job>>;

  Taken takeLocked(bool bounce);
  void giveUp(Job& job, const Status& status, Settling& settling);
  void settle(Settling settling);

  LinkEvents& events_;
  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::unordered_map<Job*, std::unique_ptr<Job>> all_;
  std::deque<Job*> waiting_;
  bool stopped_ = false;
  Status why_;
};

} // namespace mooncake::file
