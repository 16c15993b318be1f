// The active role: a path from a NIC of ours to one of a peer, which moves slices as one-sided reads and writes. One work request
// for each piece, those of many slices linked into one call of the device, the last of a slice signalled. Where a batch is verified, and the peer is an
// engine of ours, both sides sum what was moved and the sums are compared.
//
//   connecting ── handshake, probes ──► up ── error, silence, no link ──► draining ── all is flushed ──► out
//        ▲                                                                                              │
//        └──────────────────────────────── cool-down, 100 ms to 5 s ────────────────────────────────────┘
//
// Slices that a broken path had are settled when the NIC has let go of them: when they were flushed, or when the queue pairs were
// destroyed. Where it was a request's own fault (memory that the peer does not let NICs write), its batch ends with that, the queue
// pairs are made anew at once, and slices of other batches stay and go over them. All of the states changes on the device's thread; slices are posted from any.
#pragma once

#include "transport/rdma/chain.h"
#include "transport/rdma/endpoint.h"
#include "transport/rdma/region.h"
#include "transport/rdma/settling.h"

#include <deque>

namespace mooncake::rdma {

/** Numbers of messages that ask for nothing: whether anything arrives, and whether what fills a packet does. */
constexpr u32 PROBE = 0xffffffff;
constexpr u32 FULL_PROBE = 0xfffffffe;

class Trial;

struct PathSettings {
  std::string localNic;
  /** "server@device" of the peer's, and its place in the peer's lists of keys. */
  std::string remoteNic;
  size_t remoteIndex = 0;
  /** As its descriptor says it. */
  std::string remoteGid;
  /** Our device's place in the list of Regions. */
  size_t localIndex = 0;
  /** Of the engine, for its whole life: how the peer tells connections of ours apart. */
  u32 number = 0;
  /** The peer is an engine of ours, which answers messages. */
  bool own = false;
  u32 pairs = 2;
  QueuePairLimits limits;
  /** Without any completion or answer, while some are awaited, for so long: broken. */
  std::chrono::milliseconds stall{2000};
  /** Where packets are shorter than our port's, after so long longer ones are tried, then later each time. */
  std::chrono::milliseconds raise{10'000};
};

/** What a handshake says beside the endpoint's part, to an engine of ours. */
Shake greeting(const TransportContext& context, const Peer& peer, const PathSettings& settings);
/** The other side, as it answers. Fails with peer, with protocol. */
Expected<Counterpart> readAnswer(const PathSettings& settings, const Expected<Shake>& answer);
/** A message that fills a packet. False: the device takes none. */
bool sendFullProbe(MessageChannel& messages);

class Path final : public Poster, public Ticker, public std::enable_shared_from_this<Path> {
 public:
  Path(TransportContext& context, std::shared_ptr<Device> device, std::shared_ptr<Regions> regions, Peer& peer, LinkEvents& events,
       PathSettings settings);

  void start();
  LinkState state() const;
  Status failure() const;
  std::string detail() const;
  void post(std::span<Slice* const> slices);
  void cancel(Batch& batch);
  /** Returns when all slices are settled and the queue pairs are gone. */
  void close();

  // On the device's thread.
  void completed(std::span<const ibv_wc> completions) override;
  void tick(Clock::time_point now) override;

 private:
  enum class State : u8 { connecting, up, draining, out, closed };

  /** A slice under way. */
  struct Op {
    Slice* slice = nullptr;
    u32 requests = 0;
    u16 pair = 0;
    /** What it waits for before it is settled. */
    bool moving = false;
    bool summing = false;
    bool asking = false;
    ibv_wc_status result = IBV_WC_SUCCESS;
    Code code = Code::ok;
    u64 localSum = 0;
    u64 remoteSum = 0;
  };
  enum class Begun : u8 { chained, full, unregistered, refused };
  struct Registration;
  struct Summation;

  // With the lock held:
  /** False: there is no room for it now. */
  bool start(Slice& slice, Settling& settling);
  Begun begin(Slice& slice, Status& refusal, u32& missing);
  Begun chainPieces(Slice& slice, Op& op, u32 index, Status& refusal, u32& missing);
  /** Hands what was begun to the device: whoever begins slices ends with it. */
  void send(Settling& settling);
  void refuse(std::span<const ibv_send_wr> requests, u32 sent, const Status& why, Settling& settling);
  bool localKey(const Segment& segment, u32& key, u32& missing, Status& refusal);
  bool remoteKey(u32 segment, u64& address, u32& key, Status& refusal);
  void park(Slice& slice, u32 segment);
  void completed(const ibv_wc& completion, Settling& settling);
  void moved(u32 index, Settling& settling);
  void ask(u32 index);
  void finish(u32 index, Settling& settling);
  void forget(u32 index);
  void startWaiting(Settling& settling);
  void stopAsking(Settling& settling);
  void abandonWaiting(const Status& why, Settling& settling, const Batch* batch);
  void breakUp(Status why, Settling& settling);
  void blame(const Op& op, Settling& settling);
  /** Makes the queue pairs anew at once: slices stay, and go over the new ones. */
  void mend(Status why, Settling& settling);
  bool goesOn(const Slice& slice) const;
  bool drained() const;
  bool verifies(const Slice& slice) const { return slice.batch->verify() && settings_.own && !slice.unmapped; }
  Status lost() const;
  void setUp();
  void fillPacket(Settling& settling);
  std::chrono::milliseconds stepLimit() const;
  Status unconnected();
  Status broken(ibv_wc_status status);

  // Without it:
  void registered(u32 segment, const Status& status);
  void summed(u32 index, u64 sum);

  // On the device's thread:
  void connect();
  void shaken(u32 attempt, const Expected<Shake>& answer);
  void retry(Status why);
  void takeDown(Settling& settling);
  void handle(std::span<const u8> bytes, Settling& settling);
  void lookForMore(Clock::time_point now);
  void longerPacketsArrive();

  TransportContext& context_;
  const std::shared_ptr<Device> device_;
  const std::shared_ptr<Regions> regions_;
  Peer& peer_;
  LinkEvents& events_;
  const PathSettings settings_;

  mutable std::mutex mutex_;
  std::condition_variable closedCondition_;
  std::atomic<State> state_{State::connecting};
  /** Why it is not up; ok at first. */
  Status failure_;
  /** It is connected again because of a request's own fault, of batches with these numbers. */
  bool mending_ = false;
  std::vector<u64> guilty_;
  /** It was tried, and there is no connection now. */
  std::atomic<bool> lost_{false};
  std::atomic<bool> closing_{false};
  std::shared_ptr<Endpoint> endpoint_;
  std::vector<Op> ops_;
  std::vector<u32> freeOps_;
  /** Requests under way, and when the last completed, for each queue pair. */
  struct PairUse {
    u32 requests = 0;
    Clock::time_point progress{};
  };
  std::vector<PairUse> use_;
  /** For each queue pair; empty whenever the lock is free. */
  std::vector<Chain> chains_;
  u32 nextPair_ = 0;
  u32 underWay_ = 0;
  u32 unanswered_ = 0;
  /** When the peer last answered, or the first of some questions was asked. */
  Clock::time_point answered_{};
  std::deque<Slice*> waiting_;
  /** Ops whose data was moved, and which wait for their turn to ask for the peer's sum. */
  std::deque<u32> unasked_;
  /** Slices that wait for a segment of ours to be registered. */
  std::vector<std::pair<u32, Slice*>> parked_;
  std::vector<u32> registering_;
  /** Numbers of batches that were cancelled while they had slices under way, and since when. */
  std::vector<std::pair<u64, Clock::time_point>> cancelled_;
  /** The last segments, which are mostly those of the next slice. */
  struct {
    u32 id = 0;
    const Region* region = nullptr;
  } local_;
  struct {
    u32 id = 0;
    u64 version = 0;
    u64 address = 0;
    u32 key = 0;
  } remote_;

  // The device's thread alone.
  /** Failures since slices were last moved. */
  u32 failures_ = 0;
  /** It has moved something since it is up. */
  bool carried_ = false;
  /** Counts handshakes, so that a late answer is not taken for that of the next. */
  u32 attempt_ = 0;
  /** What of connecting is under way: the handshake, a short message to and fro, one that fills a packet. */
  enum class Step : u8 { shaking, reaching, filling };
  Step step_ = Step::shaking;
  /** What packets carry at most: less than the ports have, where those of their size did not arrive. */
  ibv_mtu mtu_ = IBV_MTU_4096;
  /** Whether that, or what the ports had, is still so: when it is tried, and how long after that again. */
  Clock::time_point raiseAt_{};
  std::chrono::milliseconds raisePause_{};
  std::shared_ptr<Trial> trial_;
  /** Since when it is in its state. */
  Clock::time_point since_{};
  Clock::time_point retryAt_{};
};

/** A path as the engine sees it. */
class RdmaLink final : public Link {
 public:
  RdmaLink(std::string name, const Capabilities& can, std::shared_ptr<Path> path)
      : name_(std::move(name)), capabilities_(can), path_(std::move(path)) {
    path_->start();
  }
  ~RdmaLink() override { close(); }

  const std::string& name() const override { return name_; }
  const Capabilities& capabilities() const override { return capabilities_; }
  LinkState state() const override { return path_->state(); }
  Status failure() const override { return path_->failure(); }
  std::string detail() const override { return path_->detail(); }
  bool reaches(const Slice& slice) const override { return !slice.file; }
  void post(Slice& slice) override {
    Slice* const one = &slice;
    path_->post({&one, 1});
  }
  void postAll(std::span<Slice* const> slices) override { path_->post(slices); }
  void cancel(Batch& batch) override { path_->cancel(batch); }
  void close() override { path_->close(); }

 private:
  const std::string name_;
  const Capabilities capabilities_;
  const std::shared_ptr<Path> path_;
};

}  // namespace mooncake::rdma
