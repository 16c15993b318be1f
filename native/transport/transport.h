// The interfaces that a way of moving bytes implements. A transport opens links to a peer and may listen for others; a
// link is one path (a TCP stream, a mapping of the peer's memory, a NIC's rail) that takes slices and settles each once.
// What a link can do is asked, not assumed; which link gets a slice is decided elsewhere (engine/chooser.h).
#pragma once

#include "engine/batch.h"

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace mooncake {

class CopyPool;
namespace cuda {
class Gpus;
}

namespace rdma {
class Verbs;
}

/** Flat settings of an endpoint or a listener, as they stand in a segment descriptor: {"host": "::1", "port": "4711"}. */
using Settings = std::map<std::string, std::string>;

/** Do not change while the link is open. */
struct Capabilities {
  bool read = false;
  bool write = false;
  bool copy = false;
  /** Can compare what arrived with the sender's checksum. A batch that asks for it never goes over a link that cannot,
      unless the peer has none that can: then its bytes are reported as not verified. */
  bool verify = false;
  /** Carries slices with memory of GPUs, and no others. */
  bool devices = false;
  /** Also carries slices of memory that has no address for the processor. */
  bool unmapped = false;
  /** Slices are at most so large, and have at most so many records. */
  u64 sliceBytes = 1 << 20;
  u32 sliceRecords = 4096;
  /** Bytes that the link should have under way, at most; the engine keeps the rest back for whichever link is free. */
  u64 windowBytes = 8 << 20;
  /** Before the first measurement, bytes per second; lower-ranked transports are used when the better have failed. */
  double bandwidth = 1e9;
  /** Of the device that moves the bytes; -1: of none, or not known. */
  int numaNode = -1;
  /** Slices go to links of this rank one after the other, not to whichever is predicted to be done first. */
  bool inTurn = false;
  int rank = 0;  // local 0, shm 1, rdma 2, tcp 3; file and cuda 0 (each the only one for its segments)
  /** Where the device that moves the bytes is; none: not known. */
  PciPlace place;
};

struct LinkStats {
  std::atomic<u64> slices{0};
  std::atomic<u64> bytes{0};
  std::atomic<u64> failures{0};
  std::atomic<u64> inFlightBytes{0};
  /** Exponentially weighted, bytes per second; written by the engine as slices settle. */
  std::atomic<double> bandwidth{0};
};

/** A slice that a link is done with. */
struct Settled {
  Slice* slice = nullptr;
  Status status;
  /** Its checksum was compared. */
  bool verified = false;
};

/** Where a link reports. From any thread, also within `post`. */
class LinkEvents {
 public:
  virtual ~LinkEvents() = default;
  /** The slice no longer touches memory of ours. `verified`: its checksum was compared. Exactly once per posted slice. To
      be called without a lock of the link: the engine may post to it before this returns. The slice is not to be
      looked at afterwards. */
  virtual void settled(Slice& slice, Status status, bool verified) = 0;

  /** Several at once: less work than one after the other. */
  virtual void settledAll(std::span<Settled> all) {
    for (Settled& one : all) settled(*one.slice, std::move(one.status), one.verified);
  }
};

/** A link may connect again; `down` is for good. */
enum class LinkState : u8 { connecting, up, down };

/** `state`, `failure` and `reaches` are called with a lock of the engine held: they may lock what is the link's own, and
    nothing that is held while it calls `settled`. `post`, `cancel` and `close` are called without any. */
class Link {
 public:
  virtual ~Link() = default;

  /** "tcp 127.0.0.1:4711 #2": for statistics and messages. */
  virtual const std::string& name() const = 0;
  virtual const Capabilities& capabilities() const = 0;

  /** Whoever changes it calls TransportContext::wake. */
  virtual LinkState state() const = 0;

  /** Why it is down; ok while it is not. */
  virtual Status failure() const = 0;

  /** How it moves bytes, and why not in a better way: for statistics and doctor. */
  virtual std::string detail() const { return {}; }

  /** Whether it can carry that slice (has the mapping, knows the address, …). Cheap. */
  virtual bool reaches(const Slice& slice) const = 0;

  /** Takes a slice; may be called from any thread, must not block, may settle before it returns. A link that is down or
      closed settles it at once. */
  virtual void post(Slice& slice) = 0;

  /** Several at once, for links to which that is less work. */
  virtual void postAll(std::span<Slice* const> slices) {
    for (Slice* const slice : slices) post(*slice);
  }

  /** The batch is given up: its slices settle with `aborted` as soon as they can no longer touch our memory, at the latest
      within some 100 ms (close the connection if need be). Does not wait for it. */
  virtual void cancel(Batch& batch) = 0;

  /** Ends all slices, closes what it has open, joins its threads. Idempotent. Called before destruction. */
  virtual void close() = 0;

  u32 number = 0;  // set by the engine, unique
  LinkStats stats;
};

/** What a transport needs of the engine. */
struct TransportContext {
  MemoryTable& memory;
  /** Threads for copies and for system calls that block, shared by all transports (transport/copy_pool.h). */
  CopyPool& copies;
  /** Of this run of the engine, random: peers compare it, so that a restarted one is not mistaken for the old. */
  u64 generation = 0;
  /** Asks again which link a waiting slice may use: a link came up or went down. From any thread, under any lock. */
  std::function<void()> wake;
  /** A handshake (wire section 7) that came in on a shared port: the answer goes to `reply`, from any thread, once. */
  std::function<void(u8 type, std::string json, std::function<void(std::string)> reply)> handshake;
  /** How long a thread that waits for peers, and had work at short intervals, polls before it sleeps; 0: not at all. */
  std::chrono::microseconds spin{};
  /** Asks a peer for a connection: its answer goes to `answer`, from any thread, once, within some seconds. */
  std::function<void(const std::string& peer, Settings request, std::function<void(Expected<Settings>)> answer)> shake{};
  /** What stands in for libibverbs in tests; null: the machine's. */
  std::shared_ptr<rdma::Verbs> verbs{};
  /** For the transport cuda. None is opened before somebody registers memory of it (transport/cuda/gpu.h). */
  cuda::Gpus* gpus = nullptr;
  /** The part of a GPU's multiprocessors that copies may have (transport/cuda/launcher.h). */
  double gpuShare = 0.5;
};

/** With which a NIC of ours, and NICs of peers, reach a segment; 0 where it is not registered with that NIC. */
struct SegmentKey {
  u32 local = 0;
  u32 remote = 0;
  /** Why it is not. */
  std::string refusal{};
};

/** What was found on this machine, for doctor. */
struct Probe {
  bool usable = false;
  /** "io_uring 0x3ffff", or why not. */
  std::string detail;
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual const char* name() const = 0;
  virtual Probe probe() = 0;
  /** Serves peers; what they need to reach it. Settings it does not know are ignored, values it cannot use are refused. */
  virtual Expected<Settings> listen(const Settings& settings) = 0;
  /** Opens links to a peer. They may still be connecting when this returns: see Link::alive. `events` outlives them. */
  virtual Expected<std::vector<std::unique_ptr<Link>>> open(const Settings& endpoint, class Peer& peer, LinkEvents& events) = 0;
  /** Makes a segment reachable by peers: a key for each NIC that `listen` announced. Takes as long as pinning its pages does. */
  virtual Expected<std::vector<SegmentKey>> expose(u32 /*segment*/) {
    return Status(Code::notSupported, std::string("transport ") + name() + " needs no keys");
  }
  /** Answers a peer that asks for a connection. */
  virtual Settings accept(const Settings& /*request*/) {
    return {{"reply_msg", std::string("transport ") + name() + " makes no connections"}};
  }
  /** Stops listening and serving; joins its threads. Idempotent. */
  virtual void close() = 0;
};

using MakeTransport = std::unique_ptr<Transport> (*)(TransportContext&);

/** All transports, in transport/registry.cpp: one line each. */
const std::vector<std::pair<const char*, MakeTransport>>& transports();

}  // namespace mooncake
