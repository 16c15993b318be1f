// A stream to a peer of ours (frames.h): requests of a slice each, many under way at once. Whoever posts to a stream
// that has nothing to send sends at once; otherwise, and for large writes, the loop does. The loop receives.
#pragma once

#include "transport/tcp/fences.h"
#include "transport/tcp/input.h"
#include "transport/tcp/output.h"
#include "transport/tcp/stream.h"

#include <unordered_map>

namespace mooncake::tcp {

class OwnStream final : public Stream {
 public:
  /** `expected`: the generation of the peer, 0 for any; `generation`: ours; `number`: of the stream, unique in that. */
  OwnStream(StreamContext context, u64 expected, u64 generation, u32 number, std::shared_ptr<Fences> fences);

  void post(Slice& slice) override;
  void cancel(Batch& batch) override;

 private:
  struct Request {
    /** Null once it is settled; what still comes of it is dropped. */
    Slice* slice = nullptr;
    bool write = false;
    bool verify = false;
    /** Its item has left the output: a write's memory is not touched any more. */
    bool sent = false;
    /** Its batch is given up. A write is then settled when the peer has said that nothing of it lands any more, or when its
        connection has ended: at `limit` at the latest. */
    bool dropped = false;
    Clock::time_point limit{};
    /** A read's data has begun to arrive. */
    bool received = false;
    /** A write that was answered before whoever sends it noticed that it is sent. */
    bool answered = false;
    bool verified = false;
    Status answer;
    /** Of a read. */
    Target target;
  };

  void connected(Lock& lock) override;
  void readable() override;
  void writable() override;
  bool watch(u64 now) override;
  bool inUse() const override { return sending_; }
  void abandon(const Status& why, Settlements& done) override;

  // With the lock held:
  void queue(Item item);
  /** Queues what must be said before the next request. */
  void queueFences();
  void send(Lock& lock, Settlements& done);
  void kick();
  void markSent(u32 id, Settlements& done);
  /** Takes what was given up out of the output. */
  void letGo(Settlements& done);
  void settle(Request& request, Status status, bool verified, Settlements& done);
  /** Takes what is in the staging area as far as it goes. */
  Status consume(Settlements& done);
  Status takeHello();
  Status takeFrame(const Frame& frame, Settlements& done);
  Status takeAnswer(const Frame& frame, Settlements& done);

  /** Of the peer; where it was not known, of the first that answered. */
  u64 expected_;
  const u64 generation_;
  const u32 number_;
  const std::shared_ptr<Fences> fences_;
  /** Of the current connection. `fencesSent_`: those of `fenceVersion_`. */
  u16 connection_ = 0;
  u64 fenceVersion_ = 0;
  Fences::Ended fencesSent_;

  std::unordered_map<u32, std::unique_ptr<Request>> requests_;
  u32 lastId_ = 0;
  /** Belongs to whoever set `sending_`, else to whoever has the lock; what comes meanwhile is in `pending_`. */
  Output output_;
  std::vector<Item> pending_;
  bool sending_ = false;
  bool kicked_ = false;
  /** Some requests in the output may be dropped ones. */
  bool givenUp_ = false;
  /** Something was sent since the last tick. */
  bool spoke_ = false;

  // The loop's:
  Input input_;
  /** The read whose data arrives; `reading_`: right now, without the lock. */
  Request* current_ = nullptr;
  bool reading_ = false;
  u64 heard_ = 0;
  u64 said_ = 0;
  bool wasBusy_ = false;
  bool anotherPeer_ = false;
};

}  // namespace mooncake::tcp
