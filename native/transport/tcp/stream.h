// A client's connection that is made again when it breaks: connects without blocking, tries the addresses of the peer in
// turn with growing pauses, and gives up for good where nobody listens any more or the peer turns out to be another.
//
// It is watched by one loop, on whose thread it connects, receives and ends. `mutex_` guards what other threads touch;
// slices are settled when it is not held.
#pragma once

#include "transport/tcp/loop.h"
#include "transport/tcp/retry.h"
#include "transport/transport.h"

#include <condition_variable>

namespace mooncake::tcp {

/** Where to connect. The addresses may come later: a name is being looked up. */
struct Route {
  /** "192.0.2.2:4711" */
  std::string place;
  std::mutex mutex;
  std::vector<Address> addresses;
  /** Of the last lookup, where it failed. */
  Status failure;
};

/** Slices to settle, once no lock is held. */
class Settlements {
 public:
  void add(Slice& slice, Status status, bool verified = false) { list_.push_back({&slice, std::move(status), verified}); }
  void deliver(LinkEvents& events) {
    // Settling may lead to a post, which has a list of its own.
    for (Entry& entry : list_) events.settled(*entry.slice, std::move(entry.status), entry.verified);
    list_.clear();
  }

 private:
  struct Entry {
    Slice* slice;
    Status status;
    bool verified;
  };
  std::vector<Entry> list_;
};

struct StreamContext {
  std::shared_ptr<Loop> loop;
  std::shared_ptr<Route> route;
  LinkEvents& events;
  std::function<void()> wake;
};

class Stream : public Watched, public std::enable_shared_from_this<Stream> {
 public:
  /** Begins to connect. */
  void start();
  /** Ends all slices; returns when none touches memory any more and the loop has let go. */
  void close();

  LinkState state() const;
  Status failure() const;

  virtual void post(Slice& slice) = 0;
  virtual void cancel(Batch& batch) = 0;

  void ready(u32 events) final;
  bool tick() final;

 protected:
  using Lock = std::unique_lock<std::mutex>;
  enum class Phase : u8 { idle, connecting, greeting, up, down };

  Stream(StreamContext context, u64 refusedMs) : context_(std::move(context)), retry_(refusedMs) {}

  // For the kinds of stream, on the loop's thread:
  /** The socket is connected: greet the peer, or call `rise`. */
  virtual void connected(Lock& lock) = 0;
  virtual void readable() = 0;
  virtual void writable() = 0;
  /** While greeting or up. True: busy. */
  virtual bool watch(u64 now) = 0;
  /** Whether another thread uses the socket; it calls `endIfFailing` afterwards. With the lock held. */
  virtual bool inUse() const { return false; }
  /** Forgets everything under way, what is not settled settles with `why`. With the lock held. */
  virtual void abandon(const Status& why, Settlements& done) = 0;

  /** The peer is there and is the right one. With the lock held. */
  void rise();
  /** The connection is of no use any more. `forGood`: nor would another be. Loop's thread, without the lock. */
  void fail(Status why, bool forGood = false);
  void endIfFailing();
  void wantToWrite(bool want);

  Loop& loop() { return *context_.loop; }
  LinkEvents& events() { return context_.events; }
  const std::string& place() const { return context_.route->place; }
  Status notUp() const;
  /** With the lock held. */
  bool failing() const { return failing_; }

  mutable std::mutex mutex_;
  Phase phase_ = Phase::idle;
  Fd fd_;
  /** Of the loop's clock: when the phase began. */
  u64 since_ = 0;

 private:
  void connect(Lock& lock);
  void checkConnect();
  void finish(Lock& lock);

  const StreamContext context_;
  Retry retry_;
  size_t turn_ = 0;
  u64 name_ = 0;
  bool wantsToWrite_ = false;
  /** The connection ends as soon as nobody uses it. */
  bool failing_ = false;
  bool forGood_ = false;
  bool refused_ = false;
  Status failure_;
  std::condition_variable ended_;
};

}  // namespace mooncake::tcp
