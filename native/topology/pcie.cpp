#include "topology/pcie.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>

namespace mooncake {

namespace {

/** Takes hexadecimal digits off the start of `text`, at least and at most so many. */
bool takeHex(std::string_view& text, size_t least, size_t most, u64& value) {
  const char* const end = text.data() + std::min(text.size(), most);
  const auto [next, error] = std::from_chars(text.data(), end, value, 16);
  const auto digits = static_cast<size_t>(next - text.data());
  if (error != std::errc{} || digits < least) return false;
  text.remove_prefix(digits);
  return true;
}

bool take(std::string_view& text, char wanted) {
  if (text.empty() || text.front() != wanted) return false;
  text.remove_prefix(1);
  return true;
}

constexpr u64 HOST_BRIDGE = u64{1} << 63;

/** "0000:3b:00.0" as domain, bus, device and function. */
std::optional<u64> functionOf(std::string_view text) {
  u64 domain = 0, bus = 0, device = 0, function = 0;
  const bool is = takeHex(text, 4, 8, domain) && take(text, ':') && takeHex(text, 2, 2, bus) && take(text, ':') &&
                  takeHex(text, 2, 2, device) && take(text, '.') && takeHex(text, 1, 1, function) && text.empty();
  if (!is || device > 31 || function > 7) return std::nullopt;
  return domain << 16 | bus << 8 | device << 3 | function;
}

/** "pci0000:3a". */
std::optional<u64> hostBridgeOf(std::string_view text) {
  u64 domain = 0, bus = 0;
  if (!text.starts_with("pci")) return std::nullopt;
  text.remove_prefix(3);
  if (!takeHex(text, 4, 8, domain) || !take(text, ':') || !takeHex(text, 2, 2, bus) || !text.empty()) return std::nullopt;
  return HOST_BRIDGE | domain << 8 | bus;
}

int numaNodeAt(const std::string& folder) {
  std::ifstream file(folder + "/numa_node");
  int node = -1;
  return file >> node && node >= 0 ? node : -1;
}

/** Of a folder of a device, or a link to one. What lies below a PCI function (virtio, a part of a NIC) is where that is. */
PciPlace placeAt(const std::string& link) {
  char* const resolved = ::realpath(link.c_str(), nullptr);
  if (resolved == nullptr) return {};
  const std::string real(resolved);
  std::free(resolved);
  PciPlace place;
  size_t deviceEnds = 0;
  for (size_t begin = 0; begin < real.size();) {
    const size_t end = std::min(real.find('/', begin), real.size());
    const std::string_view name = std::string_view(real).substr(begin, end - begin);
    std::optional<u64> step = hostBridgeOf(name);
    if (!step && place) step = functionOf(name);
    if (!step && place) break;
    if (step) {
      if (place.depth == PciPlace::MAX_DEPTH) return {};
      place.path[place.depth++] = *step;
      deviceEnds = end;
    }
    begin = end + 1;
  }
  // A host bridge alone is no device.
  if (!place || (place.path[place.depth - 1] & HOST_BRIDGE) != 0) return {};
  place.numaNode = numaNodeAt(real.substr(0, deviceEnds));
  return place;
}

}  // namespace

std::string pciAddress(const std::string& text) {
  const std::optional<u64> found = functionOf(text);
  if (!found) return {};
  char address[24];
  std::snprintf(address, sizeof address, "%04llx:%02llx:%02llx.%llx", static_cast<unsigned long long>(*found >> 16),
                static_cast<unsigned long long>(*found >> 8 & 0xff), static_cast<unsigned long long>(*found >> 3 & 0x1f),
                static_cast<unsigned long long>(*found & 7));
  return address;
}

PciPlace placeOfPci(const std::string& address, const std::string& sysfs) {
  const std::optional<u64> wanted = functionOf(address);
  if (!wanted) return {};
  const PciPlace place = placeAt(sysfs + "/bus/pci/devices/" + address);
  return place && place.path[place.depth - 1] == *wanted ? place : PciPlace{};
}

PciPlace placeOfNic(const std::string& name, const std::string& sysfs) {
  return placeAt(sysfs + "/class/infiniband/" + name + "/device");
}

PciDistance distance(const PciPlace& one, const PciPlace& other) {
  if (!one || !other) return PciDistance::unknown;
  const u32 least = std::min(one.depth, other.depth);
  u32 shared = 0;
  while (shared < least && one.path[shared] == other.path[shared]) shared++;
  if (shared == 0) {
    if (one.numaNode < 0 || other.numaNode < 0) return PciDistance::unknown;
    return one.numaNode == other.numaNode ? PciDistance::node : PciDistance::sys;
  }
  if (shared == 1) return PciDistance::phb;
  // Below the last bridge that both share, a switch has one more bridge for each of its ports.
  return std::max(one.depth, other.depth) - shared <= 2 ? PciDistance::pix : PciDistance::pxb;
}

}  // namespace mooncake
