#include "transport/cuda/gpu.h"

#include "topology/pcie.h"
#include "transport/cuda/kernels_ptx.h"

#include <algorithm>
#include <cstdio>

namespace mooncake::cuda {

namespace {

std::string text(const Uuid& uuid) {
  std::string out = "GPU-";
  for (int i = 0; i < 16; i++) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", uuid.bytes[i]);
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += digits;
  }
  return out;
}

}  // namespace

Gpus::~Gpus() {
  for (const auto& gpu : all_) {
    if (gpu->context == nullptr) continue;
    {
      const Current current(*gpu);
      if (gpu->module != nullptr) gpu->driver->moduleUnload(gpu->module);
    }
    gpu->driver->contextRelease(gpu->device);
  }
}

Status Gpus::find() {
  if (looked_) return failure_;
  looked_ = true;
  const Driver* found = given_;
  if (found == nullptr) {
    const Expected<const Driver*> loaded = driver();
    if (!loaded.ok()) return failure_ = loaded.status;
    found = loaded.value;
  }
  int count = 0;
  if (const Result result = found->deviceCount(&count); result != SUCCESS) {
    return failure_ = found->status("cuDeviceGetCount", result);
  }
  if (count == 0) return failure_ = {Code::notSupported, "the driver finds no GPU"};
  for (Ordinal ordinal = 0; ordinal < count; ordinal++) {
    auto gpu = std::make_unique<Gpu>();
    gpu->driver = found;
    gpu->ordinal = ordinal;
    char name[128] = {};
    Uuid uuid{};
    size_t bytes = 0;
    Result result = found->deviceGet(&gpu->device, ordinal);
    if (result == SUCCESS) result = found->deviceName(name, sizeof name, gpu->device);
    if (result == SUCCESS) result = found->deviceUuid(&uuid, gpu->device);
    if (result == SUCCESS) result = found->deviceMemory(&bytes, gpu->device);
    if (result != SUCCESS) return failure_ = found->status("GPU " + std::to_string(ordinal), result);
    gpu->name = name;
    gpu->uuid = text(uuid);
    gpu->memoryBytes = bytes;
    char bus[32] = {};
    if (found->devicePciBusId(bus, sizeof bus, gpu->device) == SUCCESS && placeOfPci(pciAddress(bus))) gpu->pci = pciAddress(bus);
    int multiprocessors = 0;
    found->deviceAttribute(&multiprocessors, ATTRIBUTE_MULTIPROCESSORS, gpu->device);
    gpu->multiprocessors = static_cast<u32>(std::max(multiprocessors, 1));
    // Drivers that do not know the attribute leave it as it is.
    int shared = 0;
    found->deviceAttribute(&shared, ATTRIBUTE_MPS, gpu->device);
    gpu->shared = shared == 1;
    all_.push_back(std::move(gpu));
  }
  return {};
}

Expected<std::vector<const Gpu*>> Gpus::list() {
  const std::lock_guard lock(mutex_);
  if (const Status status = find(); !status.ok()) return status;
  std::vector<const Gpu*> gpus;
  for (const auto& gpu : all_) gpus.push_back(gpu.get());
  return gpus;
}

Expected<const Gpu*> Gpus::open(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (const Status status = find(); !status.ok()) return status;
  for (const auto& gpu : all_) {
    if (name != "cuda:" + std::to_string(gpu->ordinal) && name != gpu->uuid) continue;
    if (gpu->context == nullptr) {
      if (const Status status = openContext(*gpu); !status.ok()) return status;
    }
    return gpu.get();
  }
  std::string known;
  for (const auto& gpu : all_) known += (known.empty() ? "" : ", ") + gpu->uuid;
  return Status(Code::invalidArgument, "GPU " + name + " is not one of this machine's: cuda:0 … or " + known);
}

Status Gpus::openContext(Gpu& gpu) {
  const Driver& driver = *gpu.driver;
  Context context = nullptr;
  if (const Status status = gpu.status("cuDevicePrimaryCtxRetain", driver.contextRetain(&context, gpu.device)); !status.ok()) {
    return status;
  }
  gpu.context = context;
  const Current current(gpu);
  Status status = gpu.status("cuModuleLoadData of the copy kernel", driver.moduleLoad(&gpu.module, KERNELS));
  for (const auto& [function, name] : {std::pair{&gpu.copy, "mooncake_copy"}, {&gpu.sum, "mooncake_sum"}, {&gpu.rows, "mooncake_rows"}}) {
    if (status.ok()) status = gpu.status("cuModuleGetFunction", driver.moduleFunction(function, gpu.module, name));
  }
  if (!status.ok()) {
    gpu.context = nullptr;
    driver.contextRelease(gpu.device);
    return status;
  }
  gpu.reachedFrom = {gpu.device};
  for (const auto& other : all_) {
    int can = 0;
    if (other.get() != &gpu && driver.canAccessPeer(&can, other->device, gpu.device) == SUCCESS && can != 0) {
      gpu.reachedFrom.push_back(other->device);
    }
  }
  connect(gpu);
  return {};
}

/** Both ways with each GPU that is open. Where two cannot, the driver copies between them (copier.cpp). */
void Gpus::connect(Gpu& gpu) {
  gpu.reach = u64{1} << gpu.ordinal;
  const auto enable = [](const Gpu& from, const Gpu& to) {
    int can = 0;
    if (from.driver->canAccessPeer(&can, from.device, to.device) != SUCCESS || can == 0) return false;
    const Current current(from);
    const Result result = from.driver->enablePeerAccess(to.context, 0);
    return result == SUCCESS || result == PEER_ACCESS_ALREADY_ENABLED;
  };
  for (const auto& other : all_) {
    if (other.get() == &gpu || other->context == nullptr) continue;
    if (enable(gpu, *other)) gpu.reach |= u64{1} << other->ordinal;
    if (enable(*other, gpu)) other->reach |= u64{1} << gpu.ordinal;
  }
}

}  // namespace mooncake::cuda
