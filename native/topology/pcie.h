// Where devices sit in the PCI tree, and how far two of them are from each other, in the words of `nvidia-smi topo -m`. The tree
// is what sysfs shows: a device's folder lies below those of the bridges above it, whose first is the host bridge,
//   /sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/0000:3c:04.0/0000:3d:00.0
// (Documentation/ABI/testing/sysfs-bus-pci of the kernel). src/native/pcie.ts reads the same for `doctor`, which does without
// the accelerator.
#pragma once

#include "engine/status.h"

#include <array>

namespace mooncake {

/** Nearest first. */
enum class PciDistance : u8 {
  pix,      // at most one bridge between them
  pxb,      // several bridges, below one host bridge
  phb,      // by way of the host bridge
  node,     // between host bridges of one NUMA node
  sys,      // between NUMA nodes
  unknown,  // one of them is on no PCI bus, or on another host bridge and a node is not told
};

/** A device's way down from its host bridge. Numbers, since the chooser compares them for each slice. */
struct PciPlace {
  static constexpr u32 MAX_DEPTH = 16;
  /** Host bridge, bridges, the device. */
  std::array<u64, MAX_DEPTH> path{};
  /** 0: it is on no PCI bus that is known of. */
  u32 depth = 0;
  /** -1: not told. */
  int numaNode = -1;

  explicit operator bool() const { return depth > 0; }
};

/** "0000:3b:00.0" of what the driver and nvidia-smi write, "0000:3B:00.0" and "00000000:3B:00.0"; empty: no PCI address. */
std::string pciAddress(const std::string& text);

/** The place of a PCI device by its address, as `pciAddress` has it. Of none where sysfs shows no such device. */
PciPlace placeOfPci(const std::string& address, const std::string& sysfs = "/sys");

/** The place of an RDMA device; none for what has no PCI device, as soft-RoCE. */
PciPlace placeOfNic(const std::string& name, const std::string& sysfs = "/sys");

PciDistance distance(const PciPlace& one, const PciPlace& other);

}  // namespace mooncake
