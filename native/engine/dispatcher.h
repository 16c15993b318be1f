// The batches of one peer and the links that they share. Waiting batches take turns, a slice at a time; a slice goes to
// a link when the chooser finds one with room: when its batch starts, when another slice settles, when a link comes up.
// One lock guards it all, and is not held while a link posts or a batch is reported. A post that settles before it
// returns leads back here on the same thread: the outermost call goes on, the inner ones return at once.
#pragma once

#include "engine/chooser.h"
#include "engine/engine.h"

#include <array>
#include <condition_variable>
#include <list>
#include <mutex>
#include <unordered_map>

namespace mooncake {

/** A batch on its way. */
struct Job final : Batch {
  using Batch::Batch;

  BatchDone done;
  Clock::time_point started{};
  /** When the engine has to look at it: its deadline, then whenever links are to be asked once more to let go. */
  Clock::time_point due{};
  /** First slice that was never posted; those that failed and wait for another link. */
  size_t nextSlice = 0;
  std::vector<Slice*> failed;
  size_t settled = 0;
  /** Slices that a link has; threads that are about to call links about it. */
  u32 posted = 0;
  u32 pins = 0;
  u64 moved = 0;
  u64 verified = 0;
  /** It gives out no more slices: how it will be reported. */
  bool ended = false;
  Status end;
  /** Why a slice went to another link. */
  Status failure;
  /** In `waiting_[list]`. */
  bool waiting = false;
  u8 list = 0;
  std::list<Job*>::iterator place;

  Slice* peek() {
    if (!failed.empty()) return failed.back();
    return nextSlice < slices().size() ? &slices()[nextSlice] : nullptr;
  }
  void take() {
    if (!failed.empty()) {
      failed.pop_back();
    } else {
      nextSlice++;
    }
  }
};

class Dispatcher final : public LinkEvents, public std::enable_shared_from_this<Dispatcher> {
 public:
  /** `over` is called for each batch that ended, before its own `done`; `visit` where `lookAtAll` and `expire` are wanted
      by then. */
  Dispatcher(std::string name, u64 generation, std::function<void(bool ok)> over,
             std::function<void(Clock::time_point when)> visit)
      : peer_(std::move(name), generation), over_(std::move(over)), visit_(std::move(visit)) {}

  Peer& peer() { return peer_; }
  /** Constant after `use`. */
  const std::vector<Rail>& rails() const { return rails_; }
  const SliceLimits& limits() const { return limits_; }

  /** Takes the links; once, before the first batch. */
  void use(std::vector<Rail> rails);

  /** Takes a prepared batch. Refused, with `done` not called, when the peer is closed. */
  Status start(std::unique_ptr<Job> job);

  /** False where there is no such batch. */
  bool cancel(u64 batch, const Status& why);

  /** Ends what is past its deadline; when to look again. */
  Clock::time_point expire(Clock::time_point now);

  /** Gives waiting slices to links that can take them. Looks at some batches; where that left any out, at all soon. */
  void pump();
  void lookAtAll();

  /** Ends all batches with `why`, closes the links. Returns when every batch was reported. */
  void close(const Status& why);

  void settled(Slice& slice, Status status, bool verified) override;
  void settledAll(std::span<Settled> all) override;

 private:
  struct Posting {
    Slice* slice;
    Link* link;
  };
  /** What is posted between two looks at the queue. */
  struct Postings {
    std::array<Posting, 32> at;
    size_t count = 0;
    bool full() const { return count == at.size(); }
  };
  using Ended = std::vector<std::unique_ptr<Job>>;
  using Asked = std::vector<std::pair<Job*, std::vector<Link*>>>;

  // With the lock held:
  /** Looks at so many batches that nothing comes of; true: there are more. */
  bool pick(size_t looks, Postings& postings, Ended& ended);
  bool pickFrom(std::list<Job*>& waiting, size_t looks, Postings& postings, Ended& ended);
  bool anyRoom() const;
  void place(Job& job);
  void unplace(Job& job);
  /** Takes the slices of `all` that its first one's link had; the rest. */
  std::span<Settled> take(std::span<Settled> all, Clock::time_point now, Ended& ended);
  void settle(Settled& one, Ended& ended);
  void fail(Job& job, Slice& slice, Status status);
  Status unreachable(const Job& job) const;
  void end(Job& job, Status why);
  void collect(Job& job, Ended& ended);
  std::vector<Link*> holders(Job& job) const;
  /** Ends a batch, and pins it where links are to be asked to let go of it. */
  void giveUp(Job& job, const Status& why, Clock::time_point now, Asked& asked, Ended& ended);

  // Without it:
  void pump(size_t looks);
  static void post(const Postings& postings);
  void report(Ended& ended);
  void letGo(const Asked& asked, Ended& ended);

  Peer peer_;
  const std::function<void(bool ok)> over_;
  const std::function<void(Clock::time_point when)> visit_;
  std::vector<Rail> rails_;
  SliceLimits limits_;

  std::mutex mutex_;
  std::condition_variable empty_;
  std::unordered_map<u64, std::unique_ptr<Job>> jobs_;
  /** Batches with slices that no link has, by Slice::file of the next one: what waits for a disk holds up no copy. */
  std::list<Job*> waiting_[3];
  u64 waitingBytes_ = 0;
  /** Slices that were given to links. */
  u64 turns_ = 0;
  /** Batches that are no longer in `jobs_` and whose `done` has not returned. */
  size_t unreported_ = 0;
  bool closed_ = false;
};

}  // namespace mooncake
