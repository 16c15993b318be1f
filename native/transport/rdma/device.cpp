#include "transport/rdma/device.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace mooncake::rdma {

namespace {

/** The largest that is no more than `bytes`. */
ibv_mtu mtuWithin(u32 bytes) {
  u32 mtu = IBV_MTU_256;
  while (mtu < IBV_MTU_4096 && mtuBytes(static_cast<ibv_mtu>(mtu + 1)) <= bytes) mtu++;
  return static_cast<ibv_mtu>(mtu);
}

bool isZero(const ibv_gid& gid) {
  return std::all_of(std::begin(gid.raw), std::end(gid.raw), [](u8 byte) { return byte == 0; });
}

/** ::ffff:a.b.c.d */
bool isMappedV4(const ibv_gid& gid) {
  return gid.raw[10] == 0xff && gid.raw[11] == 0xff && std::all_of(gid.raw, gid.raw + 10, [](u8 byte) { return byte == 0; });
}

bool isLinkLocal(const ibv_gid& gid) { return gid.raw[0] == 0xfe && (gid.raw[1] & 0xc0) == 0x80; }

/** More is better: addresses that are routed by RoCEv2, those of IPv4 first, as operators of RoCE configure them. */
int worth(const ibv_gid& gid, GidType type) {
  switch (type) {
    case GidType::roce2: return isMappedV4(gid) ? 5 : isLinkLocal(gid) ? 3 : 4;
    case GidType::infiniband: return 2;
    case GidType::roce1: return 1;
    case GidType::none: return 0;
  }
  return 0;
}

/** A setting, or Mooncake's variable for it. */
std::string valueOf(const std::map<std::string, std::string>& settings, const char* key, const char* variable) {
  const auto found = settings.find(key);
  if (found != settings.end()) return found->second;
  const char* const value = variable == nullptr ? nullptr : std::getenv(variable);
  return value == nullptr ? "" : value;
}

Status readNumber(const std::map<std::string, std::string>& settings, const char* key, const char* variable, u32 most, u32& out) {
  const std::string text = valueOf(settings, key, variable);
  if (text.empty()) return {};
  char* end = nullptr;
  const unsigned long value = std::strtoul(text.c_str(), &end, 10);
  if (text[0] < '0' || text[0] > '9' || *end != '\0' || value > most) {
    return {Code::invalidArgument, std::string(key) + " \"" + text + "\" (or " + (variable == nullptr ? "-" : variable) +
                                       ") is no number from 0 to " + std::to_string(most)};
  }
  out = static_cast<u32>(value);
  return {};
}

Status unusable(const std::string& device, const std::string& why) {
  return {Code::notSupported, "RDMA device " + device + ": " + why};
}

const char* stateText(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_DOWN: return "down";
    case IBV_PORT_INIT: return "initializing: no subnet manager has configured it";
    case IBV_PORT_ARMED: return "armed";
    case IBV_PORT_ACTIVE: return "active";
    case IBV_PORT_NOP: break;
  }
  return "in an unknown state";
}

Status chooseGid(Verbs& verbs, ibv_context* context, const std::string& name, const DeviceOptions& options, int entries,
                 Port& port) {
  int best = 0;
  for (int index = 0; index < entries; index++) {
    if (options.gidIndex >= 0 && index != options.gidIndex) continue;
    ibv_gid gid{};
    if (verbs.queryGid(context, port.number, index, &gid) != 0 || isZero(gid)) continue;
    GidType type = verbs.gidType(context, port.number, index);
    // Where sysfs does not tell.
    if (type == GidType::none) type = port.ethernet ? GidType::roce2 : GidType::infiniband;
    if (worth(gid, type) <= best) continue;
    best = worth(gid, type);
    port.gid = gid;
    port.gidIndex = index;
    port.gidType = type;
  }
  if (best > 0) return {};
  const std::string place = "port " + std::to_string(port.number);
  if (options.gidIndex < 0) return unusable(name, place + " has no GID: its network interface has no address");
  return unusable(name, place + " has no GID at index " + std::to_string(options.gidIndex) + " of " + std::to_string(entries) +
                            " (gidIndex, MC_GID_INDEX)");
}

}  // namespace

std::string gidText(const ibv_gid& gid) {
  std::string text;
  for (const u8 byte : gid.raw) {
    char part[4];
    std::snprintf(part, sizeof part, text.empty() ? "%02x" : ":%02x", byte);
    text += part;
  }
  return text;
}

bool parseGid(const std::string& text, ibv_gid& gid) {
  if (text.size() != 16 * 3 - 1) return false;
  for (size_t i = 0; i < 16; i++) {
    unsigned byte = 0;
    if (i > 0 && text[3 * i - 1] != ':') return false;
    if (std::sscanf(text.c_str() + 3 * i, "%2x", &byte) != 1 || std::isxdigit(text[3 * i + 1]) == 0) return false;
    gid.raw[i] = static_cast<u8>(byte);
  }
  return true;
}

Expected<DeviceOptions> deviceOptions(const std::map<std::string, std::string>& settings) {
  DeviceOptions options;
  const std::string names = valueOf(settings, "devices", nullptr);
  for (size_t at = 0; at < names.size();) {
    const size_t comma = std::min(names.find(',', at), names.size());
    std::string name = names.substr(at, comma - at);
    std::erase(name, ' ');
    const bool twice = std::find(options.names.begin(), options.names.end(), name) != options.names.end();
    if (!name.empty() && !twice) options.names.push_back(std::move(name));
    at = comma + 1;
  }
  u32 gidIndex = UINT32_MAX;
  u32 relaxed = 1;
  for (Status status : {readNumber(settings, "gidIndex", "MC_GID_INDEX", 255, gidIndex),
                        readNumber(settings, "port", "MC_IB_PORT", 255, options.port),
                        readNumber(settings, "mtu", "MC_MTU", 4096, options.mtu),
                        readNumber(settings, "trafficClass", "MC_IB_TC", 255, options.trafficClass),
                        readNumber(settings, "serviceLevel", "MC_IB_SL", 15, options.serviceLevel),
                        readNumber(settings, "relaxedOrdering", "MC_IB_PCI_RELAXED_ORDERING", 2, relaxed)}) {
    if (!status.ok()) return status;
  }
  if (gidIndex != UINT32_MAX) options.gidIndex = static_cast<int>(gidIndex);
  if (options.mtu < 256) return Status(Code::invalidArgument, "mtu " + std::to_string(options.mtu) + " is less than 256");
  options.relaxedOrdering = relaxed != 0;
  return options;
}

Expected<Port> choosePort(Verbs& verbs, ibv_context* context, const std::string& name, const DeviceOptions& options) {
  std::string seen;
  // A device has one port or two; ports that it has not cannot be queried.
  for (u8 number = 1; number <= 4; number++) {
    if (options.port != 0 && number != options.port) continue;
    ibv_port_attr attributes{};
    if (verbs.queryPort(context, number, &attributes) != 0) continue;
    if (attributes.state != IBV_PORT_ACTIVE) {
      seen += (seen.empty() ? "port " : ", port ") + std::to_string(number) + " is " + stateText(attributes.state);
      continue;
    }
    Port port;
    port.number = number;
    port.lid = attributes.lid;
    port.mtu = std::min(attributes.active_mtu, mtuWithin(options.mtu));
    port.ethernet = attributes.link_layer == IBV_LINK_LAYER_ETHERNET;
    port.bandwidth = verbs.linkSpeed(context, number) / 8;
    if (Status status = chooseGid(verbs, context, name, options, attributes.gid_tbl_len, port); !status.ok()) return status;
    return port;
  }
  if (seen.empty()) return unusable(name, "has no port " + (options.port == 0 ? std::string("1 to 4") : std::to_string(options.port)));
  return unusable(name, "no active port: " + seen);
}

Expected<std::shared_ptr<Device>> Device::open(std::shared_ptr<Verbs> verbs, ibv_device* handle, const DeviceOptions& options,
                                               std::chrono::microseconds spin) {
  const std::string name = verbs->deviceName(handle);
  std::shared_ptr<Device> device(new Device(std::move(verbs), name, options));
  if (Status status = device->begin(handle, spin); !status.ok()) return status;
  return device;
}

Status Device::begin(ibv_device* handle, std::chrono::microseconds spin) {
  context_ = verbs_->openDevice(handle);
  if (context_ == nullptr) return unusable(name_, systemError("ibv_open_device", errno).detail);
  Expected<Port> port = choosePort(*verbs_, context_, name_, options_);
  if (!port.ok()) return port.status;
  port_ = port.value;
  numaNode_ = verbs_->numaNode(context_);
  place_ = verbs_->place(context_);
  pd_ = verbs_->allocPd(context_);
  if (pd_ == nullptr) return unusable(name_, systemError("ibv_alloc_pd", errno).detail);
  auto completions = CompletionQueue::create(*verbs_, context_, spin, [this] { readEvents(); });
  if (!completions.ok()) return unusable(name_, completions.status.detail);
  completions_ = std::move(completions.value);
  return {};
}

Device::~Device() {
  completions_.reset();
  if (pd_ != nullptr) verbs_->deallocPd(pd_);
  if (context_ != nullptr) verbs_->closeDevice(context_);
}

ibv_mtu Device::mtu() const {
  ibv_port_attr attributes{};
  if (verbs_->queryPort(context_, port_.number, &attributes) != 0) return port_.mtu;
  return std::min(attributes.active_mtu, mtuWithin(options_.mtu));
}

void Device::readEvents() {
  ibv_async_event event{};
  bool changed = false;
  while (verbs_->getAsyncEvent(context_, &event) == 0) {
    const bool ours = event.element.port_num == port_.number;
    switch (event.event_type) {
      case IBV_EVENT_PORT_ERR:
        if (ours) linked_ = false;
        break;
      case IBV_EVENT_PORT_ACTIVE:
        if (ours) linked_ = true;
        break;
      case IBV_EVENT_DEVICE_FATAL: linked_ = false; break;
      default: break;
    }
    changed = true;
    verbs_->ackAsyncEvent(&event);
  }
  // Posters look at `linked`.
  if (changed && completions_) completions_->tickAll();
}

std::vector<std::shared_ptr<Device>> openDevices(const std::shared_ptr<Verbs>& verbs, const DeviceOptions& options,
                                                 std::chrono::microseconds spin, std::vector<DeviceReport>& reports) {
  std::vector<std::shared_ptr<Device>> devices;
  int count = 0;
  ibv_device** const list = verbs->getDeviceList(&count);
  std::vector<ibv_device*> wanted;
  for (int i = 0; list != nullptr && i < count; i++) {
    if (options.names.empty()) wanted.push_back(list[i]);
  }
  for (const std::string& name : options.names) {
    ibv_device* found = nullptr;
    for (int i = 0; list != nullptr && i < count; i++) {
      if (name == verbs->deviceName(list[i])) found = list[i];
    }
    if (found != nullptr) {
      wanted.push_back(found);
    } else {
      reports.push_back({name, {Code::invalidArgument, "RDMA device " + name + ": there is none of that name"}, {}, -1});
    }
  }
  for (ibv_device* const handle : wanted) {
    auto opened = Device::open(verbs, handle, options, spin);
    DeviceReport report{verbs->deviceName(handle), opened.status, {}, -1};
    if (opened.ok()) {
      report.port = opened.value->port();
      report.numaNode = opened.value->numaNode();
      devices.push_back(std::move(opened.value));
    }
    reports.push_back(std::move(report));
  }
  if (list != nullptr) verbs->freeDeviceList(list);
  return devices;
}

}  // namespace mooncake::rdma
