// A lane to a stock peer: data requests version 1 or 2 (stock.h), one at a time, one for each run of pieces that lie next to
// each other in the peer. Everything but queueing happens on the loop's thread.
#pragma once

#include "engine/peer.h"
#include "transport/tcp/input.h"
#include "transport/tcp/output.h"
#include "transport/tcp/stock.h"
#include "transport/tcp/stream.h"

namespace mooncake::tcp {

class StockStream final : public Stream {
 public:
  /** `status`: version 2. `peer` outlives the stream. */
  StockStream(StreamContext context, const Peer& peer, bool status);

  void post(Slice& slice) override;
  void cancel(Batch& batch) override;

 private:
  /** A range of the peer's addresses, and where its bytes are here. */
  struct Part {
    StockRequest request;
    std::vector<iovec> memory;
  };
  enum class Step : u8 {
    none,     // nothing under way
    sending,  // the request, and what is written
    status,   // waiting for the status word
    data,     // receiving what is read
  };

  void connected(Lock& lock) override;
  void readable() override;
  void writable() override;
  bool watch(u64 now) override;
  void abandon(const Status& why, Settlements& done) override;

  // On the loop's thread, without the lock:
  void work();
  /** From any thread that has set `working_`. */
  void workLater();
  bool next();
  Status prepare(const Slice& slice);
  void begin();
  /** The part is done with. */
  void complete();
  Status send();
  Status receive();
  /** Ends the slice and the connection that is in the midst of it; what is queued waits for the next. */
  void breakOff(Status why);
  void settle(Status status);

  const Peer& peer_;
  const bool status_;

  /** With the lock. `working_`: the loop will look at the queue. */
  std::deque<Slice*> queue_;
  bool working_ = false;
  /** The connection ends for the sake of one slice, with this status; the others wait for the next. */
  bool keepQueue_ = false;
  Status interrupted_;
  Slice* current_ = nullptr;

  // The loop's:
  std::vector<Part> parts_;
  size_t part_ = 0;
  Step step_ = Step::none;
  Input input_;
  Output output_;
  Target target_;
  u64 progress_ = 0;
  /** Where the byte goes by which version 1 confirms a write. */
  u8 confirmation_ = 0;
  /** The last look at the socket found something. */
  bool arrived_ = false;
};

}  // namespace mooncake::tcp
