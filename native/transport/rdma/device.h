// A NIC: which of its ports and GIDs is used, and the verbs objects that all endpoints on it share: protection domain, completion
// queue with its thread, table of endpoints. What cannot be used is reported with its cause; the others go on.
#pragma once

#include "transport/rdma/completion_queue.h"
#include "transport/rdma/verbs.h"

#include <map>
#include <string>
#include <vector>

namespace mooncake::rdma {

/** 256 to 4096. */
constexpr u32 mtuBytes(ibv_mtu mtu) { return 128u << mtu; }

/** A GID as it stands in descriptors: 16 times "%02x", joined with ":". */
std::string gidText(const ibv_gid& gid);
/** False where it is none. */
bool parseGid(const std::string& text, ibv_gid& gid);

/** What is wanted of NICs; Mooncake's variables (MC_GID_INDEX, MC_IB_PORT, MC_MTU, MC_IB_TC, …) say it where settings do not. */
struct DeviceOptions {
  /** Names, in order; empty: all. */
  std::vector<std::string> names;
  /** -1: the best that the port has. */
  int gidIndex = -1;
  /** 0: the first that is active. */
  u32 port = 0;
  /** At most, in bytes. */
  u32 mtu = 4096;
  u32 trafficClass = 0;
  u32 serviceLevel = 0;
  /** Writes of the NIC may pass each other on PCIe; their completion is behind them all the same. */
  bool relaxedOrdering = true;
};

/** From settings "devices" (comma-separated), "gidIndex", "port", …, and the environment. Fails with invalidArgument. */
Expected<DeviceOptions> deviceOptions(const std::map<std::string, std::string>& settings);

/** A port and one of its GIDs. */
struct Port {
  u8 number = 0;
  int gidIndex = 0;
  ibv_gid gid{};
  GidType gidType = GidType::none;
  u16 lid = 0;
  ibv_mtu mtu = IBV_MTU_1024;
  bool ethernet = false;
  /** Bytes per second; 0: not known. */
  double bandwidth = 0;
};

/** What was found of a device that was looked at. */
struct DeviceReport {
  std::string name;
  /** Not ok: why it is not used. */
  Status status;
  Port port;
  int numaNode = -1;
};

class Endpoint;

class Device {
 public:
  /** Opens a device by its handle, chooses port and GID, and starts its thread. */
  static Expected<std::shared_ptr<Device>> open(std::shared_ptr<Verbs> verbs, ibv_device* handle, const DeviceOptions& options,
                                                std::chrono::microseconds spin);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const std::string& name() const { return name_; }
  const Port& port() const { return port_; }
  int numaNode() const { return numaNode_; }
  const PciPlace& place() const { return place_; }
  const DeviceOptions& options() const { return options_; }
  Verbs& verbs() { return *verbs_; }
  ibv_pd* pd() const { return pd_; }
  CompletionQueue& completions() { return *completions_; }

  /** What packets carry at most, as the port has it now: whoever runs the network may change it. */
  ibv_mtu mtu() const;

  /** False while the port has no link, as its events say. */
  bool linked() const { return linked_; }

 private:
  Device(std::shared_ptr<Verbs> verbs, std::string name, const DeviceOptions& options)
      : verbs_(std::move(verbs)), name_(std::move(name)), options_(options) {}
  Status begin(ibv_device* handle, std::chrono::microseconds spin);
  /** Reads all async events; on the thread. */
  void readEvents();

  const std::shared_ptr<Verbs> verbs_;
  const std::string name_;
  const DeviceOptions options_;
  Port port_;
  int numaNode_ = -1;
  PciPlace place_;
  ibv_context* context_ = nullptr;
  ibv_pd* pd_ = nullptr;
  std::atomic<bool> linked_{true};
  std::unique_ptr<CompletionQueue> completions_;
};

/** The port and GID to use of an open device. Fails with notSupported, naming the device and the cause. */
Expected<Port> choosePort(Verbs& verbs, ibv_context* context, const std::string& name, const DeviceOptions& options);

/** Opens every device that is wanted and usable, in the library's order, or that of `options.names`. `reports` has all that were
    looked at, and names that are none. */
std::vector<std::shared_ptr<Device>> openDevices(const std::shared_ptr<Verbs>& verbs, const DeviceOptions& options,
                                                 std::chrono::microseconds spin, std::vector<DeviceReport>& reports);

}  // namespace mooncake::rdma
