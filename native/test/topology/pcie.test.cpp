// The PCI trees of made-up machines, as sysfs would show them.
#include "topology/pcie.h"

#include "test/check.h"

#include <filesystem>
#include <fstream>

namespace mooncake::test {

namespace {

namespace fs = std::filesystem;

class Sysfs {
 public:
  Sysfs() {
    std::string name = (fs::temp_directory_path() / "mooncake-sysfs-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    root_ = name;
    fs::create_directories(root_ / "bus/pci/devices");
  }
  ~Sysfs() { fs::remove_all(root_); }
  Sysfs(const Sysfs&) = delete;
  Sysfs& operator=(const Sysfs&) = delete;

  /** A PCI device below bridges: "pci0000:3a/0000:3a:00.0/0000:3b:00.0". */
  void device(const std::string& path, const std::string& node) {
    const fs::path folder = fs::path("devices") / path;
    fs::create_directories(root_ / folder);
    std::ofstream(root_ / folder / "numa_node") << node << '\n';
    fs::create_directory_symlink(fs::path("../../..") / folder, root_ / "bus/pci/devices" / folder.filename());
  }

  /** An RDMA device; `device`: what its link points to. */
  void nic(const std::string& name, const fs::path& device) {
    fs::create_directories(root_ / "class/infiniband" / name);
    if (!device.empty()) {
      fs::create_directory_symlink(fs::path("../../../devices") / device, root_ / "class/infiniband" / name / "device");
    }
  }

  PciPlace pci(const std::string& address) const { return placeOfPci(address, root_); }
  PciPlace nic(const std::string& name) const { return placeOfNic(name, root_); }
  PciDistance between(const std::string& gpu, const std::string& name) const { return distance(pci(gpu), nic(name)); }
  const fs::path& root() const { return root_; }

 private:
  fs::path root_;
};

const std::string SWITCH = "pci0000:3a/0000:3a:00.0/0000:3b:00.0/";

}  // namespace

TEST(pcie, distances_are_those_of_nvidia_smi) {
  Sysfs sysfs;
  sysfs.device(SWITCH + "0000:3c:04.0/0000:3d:00.0", "0");
  const std::string gpu = "0000:3d:00.0";
  const auto add = [&](const std::string& name, const std::string& path, const std::string& node) {
    sysfs.device(path, node);
    sysfs.nic(name, path);
  };
  add("pix", SWITCH + "0000:3c:08.0/0000:3e:00.0", "0");
  add("pxb", SWITCH + "0000:3c:0c.0/0000:40:00.0/0000:41:00.0/0000:42:00.1", "0");
  add("phb", "pci0000:3a/0000:3a:02.0/0000:50:00.0", "0");
  add("node", "pci0000:5d/0000:5d:00.0/0000:5e:00.0", "0");
  add("sys", "pci0000:ae/0000:ae:00.0/0000:af:00.0", "1");
  CHECK(sysfs.between(gpu, "pix") == PciDistance::pix);
  CHECK(sysfs.between(gpu, "pxb") == PciDistance::pxb);
  CHECK(sysfs.between(gpu, "phb") == PciDistance::phb);
  CHECK(sysfs.between(gpu, "node") == PciDistance::node);
  CHECK(sysfs.between(gpu, "sys") == PciDistance::sys);
  // Either way round, and of a device to itself.
  CHECK(distance(sysfs.nic("pxb"), sysfs.pci(gpu)) == PciDistance::pxb);
  CHECK(distance(sysfs.pci(gpu), sysfs.pci(gpu)) == PciDistance::pix);
  // The same numbers in another domain are another bridge.
  add("domain", "pci0001:3a/0001:3a:00.0/0001:3b:00.0/0001:3c:08.0/0001:3e:00.0", "1");
  CHECK(sysfs.between(gpu, "domain") == PciDistance::sys);
}

TEST(pcie, what_lies_below_a_function_is_where_that_is) {
  Sysfs sysfs;
  sysfs.device(SWITCH + "0000:3c:04.0/0000:3d:00.0", "0");
  sysfs.device(SWITCH + "0000:3c:08.0/0000:3e:00.0", "0");
  fs::create_directories(sysfs.root() / "devices" / (SWITCH + "0000:3c:08.0/0000:3e:00.0/mlx5_core.sf.4"));
  sysfs.nic("mlx5_4", SWITCH + "0000:3c:08.0/0000:3e:00.0/mlx5_core.sf.4");
  CHECK(sysfs.nic("mlx5_4").numaNode == 0);
  CHECK(sysfs.between("0000:3d:00.0", "mlx5_4") == PciDistance::pix);
}

TEST(pcie, what_is_virtual_or_lies_is_at_no_place) {
  Sysfs sysfs;
  sysfs.device(SWITCH + "0000:3d:00.0", "0");
  const std::string gpu = "0000:3d:00.0";
  REQUIRE(static_cast<bool>(sysfs.pci(gpu)));
  sysfs.nic("rxe0", "");
  fs::create_directories(sysfs.root() / "devices/virtual/net/tap0");
  sysfs.nic("siw0", "virtual/net/tap0");
  sysfs.nic("dangling", "pci0000:3a/0000:3a:09.0");
  fs::create_directories(sysfs.root() / "devices/pci0000:77/power");
  sysfs.nic("bridge", "pci0000:77");
  fs::create_directories(sysfs.root() / "devices/pci0000:77/pci0000:78");
  sysfs.nic("bridges", "pci0000:77/pci0000:78");
  for (const char* name : {"rxe0", "siw0", "dangling", "bridge", "bridges", "absent", ""}) {
    CHECK(!sysfs.nic(name));
    CHECK(sysfs.between(gpu, name) == PciDistance::unknown);
  }
  // A link that leads to another device.
  fs::create_directory_symlink(sysfs.root() / "devices" / (SWITCH + gpu), sysfs.root() / "bus/pci/devices/0000:99:00.0");
  CHECK(!sysfs.pci("0000:99:00.0"));
  for (const char* address : {"", "0000:3d:00.1", "../devices", "3d:00.0", "0000:3d:00.0/.."}) CHECK(!sysfs.pci(address));
  // More bridges than there are buses for.
  std::string deep = "pci0000:88";
  for (int i = 0; i < 20; i++) deep += "/0000:" + std::to_string(10 + i) + ":00.0";
  sysfs.device(deep, "0");
  sysfs.nic("deep", deep);
  CHECK(!sysfs.nic("deep"));
}

TEST(pcie, nodes_that_are_not_told_or_not_numbers_are_not_guessed) {
  Sysfs sysfs;
  sysfs.device("pci0000:10/0000:10:00.0", "0");
  sysfs.device("pci0000:20/0000:20:00.0", "-1");
  sysfs.device("pci0000:30/0000:30:00.0", "near");
  sysfs.device("pci0000:40/0000:40:00.0", "0");
  fs::remove(sysfs.root() / "devices/pci0000:40/0000:40:00.0/numa_node");
  for (const char* address : {"0000:20:00.0", "0000:30:00.0", "0000:40:00.0"}) {
    REQUIRE(static_cast<bool>(sysfs.pci(address)));
    CHECK(sysfs.pci(address).numaNode == -1);
    CHECK(distance(sysfs.pci("0000:10:00.0"), sysfs.pci(address)) == PciDistance::unknown);
  }
}

TEST(pcie, addresses_are_read_as_drivers_write_them) {
  CHECK(pciAddress("0000:3B:00.0") == "0000:3b:00.0");
  CHECK(pciAddress("00000000:3B:1f.7") == "0000:3b:1f.7");
  CHECK(pciAddress("00010000:3b:00.0") == "10000:3b:00.0");
  for (const char* bad : {"", "3b:00.0", "0000:3b:00", "0000:3b:20.0", "0000:3b:00.8", "0000:3b:00.0 ", "0000:3b:0.0", "0000:xx:00.0",
                          "000000000:3b:00.0", "-000:3b:00.0"}) {
    CHECK(pciAddress(bad).empty());
  }
}

}  // namespace mooncake::test
