// A device that is none, behind the calls of libibverbs: several of them, in one process, on one fabric. WRITE, READ and SEND are
// executed with memcpy after the checks that a NIC makes (keys, ranges, states, rights); faults are injected by a test.
#pragma once

#include "transport/rdma/verbs.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace mooncake::test {

using namespace mooncake::rdma;

struct NullDevice;
struct NullQp;

/** What all devices share: one lock, and one thread for what takes time. */
class NullFabric {
 public:
  NullFabric();
  ~NullFabric();

  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, NullDevice*> byGid;
  u32 nextNumber = 17;

 private:
  void serve();
  bool stopping_ = false;
  std::thread thread_;
};

struct NullRequest {
  u64 id = 0;
  ibv_wr_opcode opcode{};
  unsigned flags = 0;
  std::vector<ibv_sge> places;
  std::vector<u8> inlined;
  u64 remote = 0;
  u32 key = 0;
  u64 bytes = 0;
  std::chrono::steady_clock::time_point due{};
};

struct NullCq : ibv_cq {
  std::deque<ibv_wc> completions;
  bool armed = false;
  /** Of hollow devices: numbers of requests that were completed, from `first` to `end` modulo the size; and a lock of some
      nanoseconds in place of the fabric's. */
  std::vector<u64> numbers = std::vector<u64>(1 << 14);
  size_t first = 0;
  size_t end = 0;
  std::atomic<bool> busy{false};
};

struct NullMr : ibv_mr {
  unsigned access = 0;
  /** Of a dma-buf: where its bytes are mapped, and how far into a page. */
  u8* mapped = nullptr;
  u64 within = 0;

  u8* at(u64 address) const {
    return mapped == nullptr ? reinterpret_cast<u8*>(address) : mapped + (address - reinterpret_cast<u64>(addr));
  }
};

struct NullQp : ibv_qp {
  NullDevice* device = nullptr;
  ibv_qp_cap cap{};
  ibv_qp_state state = IBV_QPS_RESET;
  ibv_qp_attr remote{};
  std::deque<NullRequest> sends;
  std::deque<std::pair<u64, ibv_sge>> receives;
};

/** A NIC. What a test may set, it sets with the fabric's lock held, or before the device is used. */
struct NullDevice {
  std::string name;
  ibv_gid gid{};
  ibv_port_state state = IBV_PORT_ACTIVE;
  ibv_mtu mtu = IBV_MTU_4096;
  int gidIndex = 1;
  int numaNode = 0;
  PciPlace place;
  /** Bytes per second; 0: at once. */
  double rate = 0;
  /** Takes requests and completes none. */
  bool silent = false;
  /** Where > 0: so many bytes more, then `failure`. */
  std::int64_t failAfter = -1;
  ibv_wc_status failure = IBV_WC_RETRY_EXC_ERR;
  /** What is longer than so many bytes in a packet does not arrive. */
  u32 carries = 4096;
  /** Where >= 0: takes so many requests more, and refuses one. */
  int refusesAfter = -1;
  bool refusesMemory = false;
  bool refusesDmabufs = false;
  bool refusesPairs = false;
  /** Flips a bit of what it writes or reads. */
  bool corrupts = false;
  /** Completes writes and reads at once, and does nothing else: to measure who asks. Set when nothing is under way. */
  std::atomic<bool> hollow{false};

  u64 requests = 0;
  u64 bytes = 0;
  int contexts = 0;
  std::map<u32, NullMr*> regions;
  std::map<u32, NullQp*> pairs;
  std::deque<ibv_async_event> events;
  std::vector<ibv_context*> open;
  std::chrono::steady_clock::time_point busyUntil{};
};

struct NullContext : ibv_context {
  NullDevice* owner = nullptr;
  NullFabric* fabric = nullptr;
};

inline NullDevice& ownerOf(ibv_context* context) { return *static_cast<NullContext*>(context)->owner; }
inline NullFabric& fabricOf(ibv_context* context) { return *static_cast<NullContext*>(context)->fabric; }

/** Wakes whoever waits for an eventfd. */
void ring(int fd);
/** The fast path's calls. */
ibv_context_ops nullOps();
/** Flushes what a queue pair has; with the fabric's lock held. */
void toError(NullQp& qp);

class NullVerbs final : public Verbs {
 public:
  /** Devices null0, null1, … with GIDs that no other on the fabric has. */
  NullVerbs(std::shared_ptr<NullFabric> fabric, u32 devices);
  ~NullVerbs() override;

  NullDevice& device(u32 index) { return *devices_[index]; }
  /** With the fabric's lock held. */
  void set(u32 index, const std::function<void(NullDevice&)>& change);
  /** The port, with its event. */
  void link(u32 index, bool up);
  /** Nothing is open: no context, region or queue pair. */
  bool idle();

  ibv_device** getDeviceList(int* count) override;
  void freeDeviceList(ibv_device** list) override;
  const char* deviceName(ibv_device* device) override;
  ibv_context* openDevice(ibv_device* device) override;
  int closeDevice(ibv_context* context) override;
  int queryPort(ibv_context* context, u8 port, ibv_port_attr* attributes) override;
  int queryGid(ibv_context* context, u8 port, int index, ibv_gid* gid) override;
  GidType gidType(ibv_context* context, u8 port, int index) override;
  int numaNode(ibv_context* context) override;
  PciPlace place(ibv_context* context) override;
  double linkSpeed(ibv_context* context, u8 port) override;
  ibv_pd* allocPd(ibv_context* context) override;
  int deallocPd(ibv_pd* pd) override;
  ibv_mr* regMr(ibv_pd* pd, void* address, size_t length, unsigned access) override;
  ibv_mr* regDmabufMr(ibv_pd* pd, u64 offset, size_t length, u64 iova, int fd, unsigned access) override;
  int deregMr(ibv_mr* region) override;
  ibv_comp_channel* createCompChannel(ibv_context* context) override;
  int destroyCompChannel(ibv_comp_channel* channel) override;
  ibv_cq* createCq(ibv_context* context, int entries, ibv_comp_channel* channel) override;
  int destroyCq(ibv_cq* cq) override;
  int getCqEvent(ibv_comp_channel* channel, ibv_cq** cq) override;
  void ackCqEvents(ibv_cq* cq, unsigned count) override;
  ibv_qp* createQp(ibv_pd* pd, ibv_qp_init_attr* attributes) override;
  int modifyQp(ibv_qp* qp, ibv_qp_attr* attributes, int mask) override;
  int destroyQp(ibv_qp* qp) override;
  int getAsyncEvent(ibv_context* context, ibv_async_event* event) override;
  void ackAsyncEvent(ibv_async_event* event) override;

  std::atomic<u64> dmabufs{0};

 private:
  friend class NullFabric;
  const std::shared_ptr<NullFabric> fabric_;
  std::vector<std::unique_ptr<NullDevice>> devices_;
};

}  // namespace mooncake::test
