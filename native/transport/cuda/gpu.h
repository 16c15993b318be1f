// The GPUs of this machine, for this process: each one's primary context, which it shares with whatever else of the process
// uses the driver, and the copy kernel in it. Nothing is opened before memory of a GPU is asked for: a context costs some
// hundred megabytes of it.
#pragma once

#include "transport/cuda/driver.h"

#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace mooncake::cuda {

struct Gpu {
  const Driver* driver = nullptr;
  Ordinal ordinal = 0;
  int device = 0;
  std::string name;
  /** "GPU-e1f592a8-8254-3ff1-46d4-5cf581aabc32", as nvidia-smi prints it. */
  std::string uuid;
  /** "0000:3b:00.0"; empty where sysfs shows no such device, as in some virtual machines. */
  std::string pci;
  u64 memoryBytes = 0;
  Context context = nullptr;
  Module module = nullptr;
  /** mooncake_copy, mooncake_sum and mooncake_rows of kernels.cu. */
  Function copy = nullptr;
  Function sum = nullptr;
  Function rows = nullptr;
  /** GPUs whose memory its kernels can address, itself among them: a bit for each ordinal. */
  u64 reach = 0;
  /** Devices (the driver's numbers) that can address its memory, itself first. */
  std::vector<int> reachedFrom;
  u32 multiprocessors = 0;
  /** Other processes share it by MPS. */
  bool shared = false;

  Status status(const std::string& call, Result result) const {
    return result == SUCCESS ? Status() : driver->status(uuid + ": " + call, result);
  }
};

/** Makes a GPU's context this thread's while it lives. */
class Current {
 public:
  explicit Current(const Gpu& gpu) : driver_(*gpu.driver), pushed_(driver_.contextPush(gpu.context) == SUCCESS) {}
  ~Current() {
    Context popped;
    if (pushed_) driver_.contextPop(&popped);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  const Driver& driver_;
  const bool pushed_;
};

class Gpus {
 public:
  /** `driver`: a test's; null: the machine's. */
  explicit Gpus(const Driver* driver = nullptr) : given_(driver) {}
  ~Gpus();

  /** All of them, without opening any. notSupported: no driver, or no GPU. */
  Expected<std::vector<const Gpu*>> list();

  /** "cuda:0", or a UUID as nvidia-smi prints it; opened. The reference stays good. */
  Expected<const Gpu*> open(const std::string& name);

 private:
  Status find();
  Status openContext(Gpu& gpu);
  void connect(Gpu& gpu);

  const Driver* const given_;
  std::mutex mutex_;
  bool looked_ = false;
  Status failure_;
  std::vector<std::unique_ptr<Gpu>> all_;
};

}  // namespace mooncake::cuda
