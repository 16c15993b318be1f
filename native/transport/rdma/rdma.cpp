#include "transport/rdma/rdma.h"

#include "engine/peer.h"
#include "transport/rdma/path.h"
#include "transport/rdma/server.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>

namespace mooncake::rdma {

namespace {

constexpr u64 SLICE_BYTES = 256 << 10;
constexpr u64 MIN_SLICE_BYTES = 4 << 10;
constexpr u64 MAX_SLICE_BYTES = 1 << 20;
/** Some times what is under way on the fastest links of today. */
constexpr u64 WINDOW_BYTES = 4 << 20;
constexpr u32 MAX_DEVICES = 64;
/** Where the port does not say how fast it is. */
constexpr double USUAL_BANDWIDTH = 12.5e9;

std::string valueOf(const Settings& settings, const char* key) {
  const auto found = settings.find(key);
  return found == settings.end() ? "" : found->second;
}

/** A variable of Mooncake's engines; `fallback` where it is not set or out of range. */
u64 variable(const char* name, u64 fallback, u64 least, u64 most) {
  const char* const text = std::getenv(name);
  if (text == nullptr || *text == '\0') return fallback;
  const u64 value = std::strtoull(text, nullptr, 10);
  return value < least || value > most ? fallback : value;
}

/** Whether links take turns: the setting "links", or the variable of Mooncake's engines for the same. Fails with invalidArgument. */
Expected<bool> inTurn(const Settings& settings) {
  const std::string links = valueOf(settings, "links");
  if (links == "predicted") return false;
  if (links == "round-robin") return true;
  if (!links.empty()) {
    return Status(Code::invalidArgument, "setting links is \"" + links.substr(0, 100) + "\": predicted or round-robin");
  }
  const char* const text = std::getenv("MC_PATH_ROUNDROBIN");
  std::string value = text == nullptr ? "" : text;
  std::transform(value.begin(), value.end(), value.begin(), [](unsigned char each) { return std::tolower(each); });
  // What Mooncake's engines take for yes.
  static constexpr std::array YES{"1", "true", "on", "yes", "enable", "enabled"};
  return std::find(YES.begin(), YES.end(), value) != YES.end();
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size() && !text.empty();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    parts.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return parts;
}

void append(std::string& list, const std::string& item, bool first) { list += (first ? "" : ",") + item; }

class RdmaTransport final : public Transport {
 public:
  explicit RdmaTransport(TransportContext& context) : context_(context) {
    limits_.depth = static_cast<u32>(variable("MC_MAX_WR", limits_.depth, 4, 8192));
    limits_.retries = static_cast<u32>(variable("MC_RETRY_CNT", limits_.retries, 0, 7));
    limits_.timeout = static_cast<u32>(variable("MOONCAKE_RDMA_ACK_TIMEOUT", limits_.timeout, 1, 31));
    pairs_ = static_cast<u32>(variable("MC_NUM_QP_PER_EP", 2, 1, 32));
    stall_ = std::chrono::milliseconds(variable("MOONCAKE_RDMA_STALL_MS", 2000, 10, 600'000));
    windowBytes_ = variable("MOONCAKE_RDMA_WINDOW", WINDOW_BYTES, 64 << 10, u64{1} << 30);
  }
  ~RdmaTransport() override { close(); }

  const char* name() const override { return "rdma"; }
  Probe probe() override;
  Expected<Settings> listen(const Settings& settings) override;
  Expected<std::vector<std::unique_ptr<Link>>> open(const Settings& endpoint, Peer& peer, LinkEvents& events) override;
  Expected<std::vector<SegmentKey>> expose(u32 segment) override;
  Settings accept(const Settings& request) override;
  void close() override;

 private:
  Expected<std::shared_ptr<Verbs>> verbs() const {
    if (context_.verbs) return context_.verbs;
    return systemVerbs();
  }
  Capabilities capabilities(const Device& device, bool own) const;

  TransportContext& context_;
  QueuePairLimits limits_;
  u32 pairs_ = 2;
  std::chrono::milliseconds stall_{};
  u64 windowBytes_ = 0;
  /** Since `listen`. */
  bool inTurn_ = false;
  std::mutex mutex_;
  bool closed_ = false;
  std::string server_;
  std::vector<std::shared_ptr<Device>> devices_;
  std::shared_ptr<Regions> regions_;
  std::shared_ptr<Server> connections_;
  u32 nextPath_ = 1;
};

/** "rxe0 up, rxe1: no active port": all that were looked at. */
std::string summary(const std::vector<DeviceReport>& reports) {
  std::string text;
  for (const DeviceReport& report : reports) {
    text += text.empty() ? "" : "; ";
    if (!report.status.ok()) {
      text += report.status.detail;
      continue;
    }
    text += report.name + " port " + std::to_string(report.port.number) + ", GID " + std::to_string(report.port.gidIndex) + " " +
            gidText(report.port.gid) + ", MTU " + std::to_string(mtuBytes(report.port.mtu));
  }
  return text;
}

Probe RdmaTransport::probe() {
  const auto library = verbs();
  if (!library.ok()) return {false, library.status.detail};
  const Expected<DeviceOptions> options = deviceOptions({});
  if (!options.ok()) return {false, options.status.detail};
  std::vector<DeviceReport> reports;
  const bool usable = !openDevices(library.value, options.value, {}, reports).empty();
  return {usable, reports.empty() ? "no RDMA device" : summary(reports)};
}

Expected<Settings> RdmaTransport::listen(const Settings& settings) {
  const std::lock_guard lock(mutex_);
  if (closed_) return Status(Code::closed, "RDMA is closed");
  if (!devices_.empty()) return Status(Code::invalidArgument, "rdma listens already");
  const std::string server = valueOf(settings, "server");
  if (server.empty() || server.find('@') != std::string::npos) {
    return Status(Code::invalidArgument, "setting server is \"" + server + "\": the name by which peers call us");
  }
  const auto library = verbs();
  if (!library.ok()) return library.status;
  const Expected<bool> turns = inTurn(settings);
  if (!turns.ok()) return turns.status;
  const Expected<DeviceOptions> options = deviceOptions(settings);
  if (!options.ok()) return options.status;
  std::vector<DeviceReport> reports;
  std::vector<std::shared_ptr<Device>> devices = openDevices(library.value, options.value, context_.spin, reports);
  if (devices.empty()) {
    return Status(Code::notSupported, reports.empty() ? "this machine has no RDMA device" : summary(reports));
  }
  devices_ = std::move(devices);
  inTurn_ = turns.value;
  server_ = server;
  regions_ = std::make_shared<Regions>(context_.memory, devices_);
  connections_ = std::make_shared<Server>(context_, server_, devices_, limits_);
  Settings announced{{"server", server_}};
  for (size_t i = 0; i < devices_.size(); i++) {
    append(announced["devices"], devices_[i]->name(), i == 0);
    append(announced["gids"], gidText(devices_[i]->port().gid), i == 0);
    append(announced["lids"], std::to_string(devices_[i]->port().lid), i == 0);
    append(announced["nodes"], std::to_string(devices_[i]->numaNode()), i == 0);
  }
  return announced;
}

Capabilities RdmaTransport::capabilities(const Device& device, bool own) const {
  Capabilities can;
  can.read = can.write = true;
  can.verify = own;
  can.unmapped = true;
  can.rank = 2;
  can.sliceBytes = variable("MC_SLICE_SIZE", SLICE_BYTES, MIN_SLICE_BYTES, MAX_SLICE_BYTES);
  can.sliceRecords = std::min(limits_.depth, MessageChannel::MAX_RECORDS);
  can.windowBytes = windowBytes_;
  can.inTurn = inTurn_;
  can.numaNode = device.numaNode();
  can.place = device.place();
  can.bandwidth = device.port().bandwidth > 0 ? device.port().bandwidth : USUAL_BANDWIDTH;
  return can;
}

Expected<std::vector<std::unique_ptr<Link>>> RdmaTransport::open(const Settings& endpoint, Peer& peer, LinkEvents& events) {
  const std::string server = valueOf(endpoint, "server");
  const std::vector<std::string> names = split(valueOf(endpoint, "devices"));
  const std::vector<std::string> gids = split(valueOf(endpoint, "gids"));
  const bool own = valueOf(endpoint, "protocol") != "stock";
  if (server.empty()) return Status(Code::invalidArgument, "endpoint of rdma without \"server\"");
  if (names.empty() || names.size() > MAX_DEVICES) {
    return Status(Code::invalidArgument, "endpoint of rdma with devices \"" + valueOf(endpoint, "devices").substr(0, 200) + "\"");
  }
  const std::lock_guard lock(mutex_);
  if (closed_) return Status(Code::closed, "RDMA is closed");
  if (devices_.empty()) return Status(Code::notSupported, "rdma does not listen: it has no NIC open");
  // Each NIC of the side that has more, with one of the other's, in turn.
  const size_t count = std::max(names.size(), devices_.size());
  std::vector<std::unique_ptr<Link>> links;
  for (size_t i = 0; i < count; i++) {
    PathSettings settings;
    settings.localIndex = i % devices_.size();
    settings.remoteIndex = i % names.size();
    const std::shared_ptr<Device>& device = devices_[settings.localIndex];
    settings.localNic = server_ + "@" + device->name();
    settings.remoteNic = server + "@" + names[settings.remoteIndex];
    if (settings.remoteIndex < gids.size()) settings.remoteGid = gids[settings.remoteIndex];
    settings.number = nextPath_++;
    settings.own = own;
    settings.pairs = pairs_;
    settings.limits = limits_;
    settings.stall = stall_;
    if (const std::string stall = valueOf(endpoint, "stallMs"); !stall.empty()) {
      settings.stall = std::chrono::milliseconds(std::clamp(std::atoi(stall.c_str()), 10, 600'000));
    }
    if (const std::string raise = valueOf(endpoint, "raiseMs"); !raise.empty()) {
      settings.raise = std::chrono::milliseconds(std::clamp(std::atoi(raise.c_str()), 10, 600'000));
    }
    auto path = std::make_shared<Path>(context_, device, regions_, peer, events, settings);
    links.push_back(std::make_unique<RdmaLink>("rdma " + device->name() + " to " + settings.remoteNic, capabilities(*device, own),
                                               std::move(path)));
  }
  return links;
}

Expected<std::vector<SegmentKey>> RdmaTransport::expose(u32 segment) {
  std::shared_ptr<Regions> regions;
  {
    const std::lock_guard lock(mutex_);
    regions = regions_;
  }
  if (!regions) return Status(Code::notSupported, "rdma does not listen");
  const SegmentRef held = context_.memory.hold(segment);
  const Expected<const Region*> region = regions->add(segment);
  if (!region.ok()) return region.status;
  std::vector<SegmentKey> keys;
  for (const Region::Key& key : region.value->keys) keys.push_back({key.local, key.remote, key.refusal});
  return keys;
}

Settings RdmaTransport::accept(const Settings& request) {
  std::shared_ptr<Server> connections;
  {
    const std::lock_guard lock(mutex_);
    connections = connections_;
  }
  if (!connections) return {{"reply_msg", "this engine has no RDMA connections"}};
  return connections->accept(request);
}

void RdmaTransport::close() {
  std::shared_ptr<Server> connections;
  std::shared_ptr<Regions> regions;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    connections = std::move(connections_);
    regions = std::move(regions_);
  }
  // Links are closed by now. What copy threads still sum for peers keeps its device until it has answered.
  if (connections) connections->close();
  if (regions) regions->close();
  const std::lock_guard lock(mutex_);
  for (const auto& device : devices_) device->completions().stop();
  devices_.clear();
}

}  // namespace

}  // namespace mooncake::rdma

namespace mooncake {

std::unique_ptr<Transport> makeRdmaTransport(TransportContext& context) {
  return std::make_unique<rdma::RdmaTransport>(context);
}

}  // namespace mooncake
