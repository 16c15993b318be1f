// The engine: registered memory, peers with their links, and batches on their way. It cuts batches into slices, gives
// each slice to the link that will have moved it first (chooser.h), gives failed ones to others until the batch's
// deadline, and reports each batch once. Threads: the transports' own, and one timer. Submitting a batch may move its
// first slices on the caller's thread (a link that is idle sends at once), which saves a wake-up per small batch.
#pragma once

#include "engine/peer.h"
#include "memory/allocate.h"
#include "transport/cuda/events.h"
#include "transport/cuda/memory.h"
#include "transport/cuda/virtual.h"
#include "transport/transport.h"

#include <functional>

namespace mooncake {

struct EngineOptions {
  /** Threads that copy for local, shm and file links; 0: as many as cores, four at most. */
  u32 copyThreads = 0;
  /** Batches under way at once; more are refused with queueFull. */
  u32 maxBatches = 8192;
  /** Names of the transports to use; empty: all. */
  std::vector<std::string> transports;
  /** Microseconds that threads which exchange small messages with a peer poll before they sleep; 0: they sleep at once, as
      they do where there is one processor. */
  u32 spinUs = 50;
  /** What stands in for libibverbs in tests; null: the machine's. */
  std::shared_ptr<rdma::Verbs> verbs{};
  /** For tests: in place of the machine's CUDA driver. */
  const cuda::Driver* cudaDriver = nullptr;
  /** The part of a GPU's multiprocessors that copies may have, 0 to 1. 0: the copy engines do it all, and nothing is verified. */
  double gpuShare = 0.5;
};

struct BatchSpec {
  Op op = Op::copy;
  /** 0 for copies. */
  u32 peer = 0;
  std::vector<Record> records;
  Clock::time_point deadline;
  bool verify = true;
  Repeat repeat{};
  /** Events (below) that must be over before anything is copied, and those that are recorded behind the copies: when the last of
      them is given to the GPU, which may be before it is done. A batch that fails may not have recorded them. */
  std::vector<u32> waits{};
  std::vector<u32> signals{};
};

struct PeerEndpoint {
  std::string transport;
  Settings settings;
};

using BatchDone = std::function<void(u64 batch, BatchResult result)>;

class Engine {
 public:
  explicit Engine(EngineOptions options);
  ~Engine();

  u64 generation() const;
  MemoryTable& memory();

  /** See memory/allocate.h. */
  Expected<Allocation> allocate(u64 length, const AllocateOptions& options);
  Expected<u32> openFile(const std::string& path, u64 length, bool writable);

  /** Memory of a GPU ("cuda:0", or its UUID), as segments for copies: ours, another library's of this process, another
      process's. See transport/cuda/memory.h. notSupported: no GPU, or no transport cuda. */
  Expected<u32> allocateDevice(const std::string& gpu, u64 length);
  Expected<u32> registerDevice(const std::string& gpu, u64 address, u64 length);
  Expected<u32> importDevice(const std::string& gpu, const cuda::IpcHandle& handle, u64 offset, u64 length);
  /** What names a segment of a GPU to other processes of the host. */
  Expected<cuda::Exported> exportDevice(u32 segment);

  /** Memory of cuMemCreate: ours, another process's, a segment handed over; see transport/cuda/virtual.h. */
  Expected<u32> allocateVirtual(const std::string& gpu, u64 length);
  Expected<u32> mapDevice(const std::string& gpu, const std::vector<cuda::Shared>& shared, u64 offset, u64 length);
  Expected<cuda::ExportedFd> exportAllocation(u32 segment);
  Expected<cuda::ExportedFd> exportDmabuf(u32 segment);

  /** Events of GPUs, for BatchSpec::waits and BatchSpec::signals; see transport/cuda/events.h. */
  Expected<u32> createEvent(const std::string& gpu);
  Expected<u32> openEvent(const std::string& gpu, const cuda::IpcEventHandle& handle);
  Expected<cuda::IpcEventHandle> exportEvent(u32 event);
  Status closeEvent(u32 event);

  /** What peers need to reach this transport. */
  Expected<Settings> listen(const std::string& transport, const Settings& settings);
  /** Who answers handshakes (transport.h); before `listen`. Nobody: connections that ask for one are closed. */
  void onHandshake(std::function<void(u8 type, std::string json, std::function<void(std::string)> reply)> handler);

  /** See Transport::expose and Transport::accept. They may take a while. */
  Expected<std::vector<SegmentKey>> expose(const std::string& transport, u32 segment);
  Settings accept(const std::string& transport, const Settings& request);
  /** Who carries what a link asks of its peer before there is a connection (TransportContext::shake); before `openPeer`. */
  void onShake(std::function<void(const std::string& peer, Settings request, std::function<void(Expected<Settings>)> answer)> carrier);

  /** Opens links by every endpoint whose transport is here. Fails only where none of them could be tried. Peer 0 is the
      engine itself. */
  Expected<u32> openPeer(const std::string& name, u64 generation, const std::vector<PeerEndpoint>& endpoints);
  void setSegments(u32 peer, const std::vector<RemoteSegment>& segments);
  /** Batches of the peer that are under way fail with `closed`. Returns when all have ended and the links are closed: some 100 ms
      at worst. Not from a `done`. */
  void closePeer(u32 peer);

  /** Starts a batch; `done` is called once, on any thread, also where this returns at once. A refusal returns a Status and
      never calls `done`. */
  Expected<u64> submit(BatchSpec spec, BatchDone done);
  /** The batch ends with `aborted` once none of its slices touches memory. No effect on a batch that ended. */
  void cancel(u64 batch);

  /** JSON: links per peer with their counters, transports with what was found, memory, batches. */
  std::string statistics() const;
  std::vector<std::pair<std::string, Probe>> probe();

  /** Ends every batch with `closed`, closes links and listeners, joins all threads. Idempotent. Not from a `done`. */
  void close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mooncake
