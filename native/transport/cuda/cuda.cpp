#include "transport/cuda/cuda.h"

#include "transport/cuda/copier.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>

namespace mooncake {

namespace {

using namespace cuda;

/** So many slices, and GPUs that were slower are tried again. */
constexpr u64 LOOK_AGAIN = 64;
constexpr double ABOUT_AS_FAST = 0.9;

Share shareOf(const TransportContext& context) {
  const char* const way = std::getenv("MOONCAKE_GPU_WAY");
  return {context.gpuShare, way == nullptr ? "" : way};
}

/** Slices go to a GPU that has a side of them: the one that copies such slices faster, which is the idle one where another process
    computes on one of them; of equals the one with less to do. */
class CudaLink final : public Link {
 public:
  CudaLink(TransportContext& context, LinkEvents& events) : context_(context), events_(events), pins_(context.memory) {
    capabilities_.copy = true;
    capabilities_.verify = true;
    capabilities_.devices = true;
    capabilities_.sliceBytes = Launcher::SLICE_BYTES;
    capabilities_.sliceRecords = Launcher::SLICE_RECORDS;
    capabilities_.windowBytes = u64{4} << 30;
    capabilities_.bandwidth = 50e9;
  }
  ~CudaLink() override { close(); }

  const std::string& name() const override { return name_; }
  const Capabilities& capabilities() const override { return capabilities_; }
  LinkState state() const override { return closed_ ? LinkState::down : LinkState::up; }
  Status failure() const override { return {}; }
  bool reaches(const Slice& slice) const override { return !slice.file; }

  void post(Slice& slice) override {
    const Expected<Copier*> copier = copierFor(slice);
    if (copier.ok()) return copier.value->post(slice);
    events_.settled(slice, copier.status, false);
  }

  void cancel(Batch& batch) override {
    for (Copier* copier : copiers()) copier->cancel(batch);
  }

  void close() override {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    for (Copier* copier : copiers()) copier->close();
  }

 private:
  std::vector<Copier*> copiers() {
    const std::lock_guard lock(mutex_);
    std::vector<Copier*> all;
    for (const auto& [ordinal, copier] : copiers_) all.push_back(copier.get());
    return all;
  }

  Expected<Copier*> copierFor(const Slice& slice) {
    const std::lock_guard lock(mutex_);
    if (closed_) return Status(Code::closed, "the engine is closed");
    // What a batch records is of one GPU, which then has all of the batch.
    const Order* const order = slice.batch->order();
    const bool signals = order != nullptr && !order->signals.empty();
    u64 devices = signals ? u64{1} << order->signals.front()->gpu.ordinal : slice.devices;
    std::array<Copier*, 64> candidates;
    size_t count = 0;
    double fastest = 0;
    for (; devices != 0; devices &= devices - 1) {
      const Expected<Copier*> copier = open(std::countr_zero(devices));
      if (!copier.ok()) return copier;
      candidates[count++] = copier.value;
      fastest = std::max(fastest, copier.value->rate(slice));
    }
    const bool all = ++posted_ % LOOK_AGAIN == 0;
    Copier* best = nullptr;
    for (size_t i = 0; i < count; i++) {
      const double rate = candidates[i]->rate(slice);
      if (!all && rate > 0 && rate < ABOUT_AS_FAST * fastest) continue;
      if (best == nullptr || candidates[i]->load() < best->load()) best = candidates[i];
    }
    return best;
  }

  Expected<Copier*> open(int ordinal) {
    std::unique_ptr<Copier>& copier = copiers_[ordinal];
    if (!copier) {
      // Open already: its memory is registered.
      const Expected<const Gpu*> gpu = context_.gpus->open("cuda:" + std::to_string(ordinal));
      if (!gpu.ok()) return gpu.status;
      const auto settled = [this](Slice& slice, Status status, bool verified) { events_.settled(slice, std::move(status), verified); };
      copier = std::make_unique<Copier>(*gpu.value, pins_, shareOf(context_), context_.spin, settled);
    }
    return copier.get();
  }

  TransportContext& context_;
  LinkEvents& events_;
  Pins pins_;
  const std::string name_ = "cuda";
  Capabilities capabilities_;
  std::mutex mutex_;
  std::map<int, std::unique_ptr<Copier>> copiers_;
  u64 posted_ = 0;
  std::atomic<bool> closed_{false};
};

class CudaTransport final : public Transport {
 public:
  explicit CudaTransport(TransportContext& context) : context_(context) {}

  const char* name() const override { return "cuda"; }
  Probe probe() override {
    const Expected<std::vector<const Gpu*>> gpus = context_.gpus->list();
    if (!gpus.ok()) return {false, gpus.status.detail};
    std::string names;
    for (const Gpu* gpu : gpus.value) names += (names.empty() ? "" : ", ") + gpu->name;
    return {true, names};
  }
  Expected<Settings> listen(const Settings&) override {
    return Status(Code::notSupported, "transport cuda serves this process alone");
  }
  Expected<std::vector<std::unique_ptr<Link>>> open(const Settings&, Peer&, LinkEvents& events) override {
    std::vector<std::unique_ptr<Link>> links;
    links.push_back(std::make_unique<CudaLink>(context_, events));
    return links;
  }
  void close() override {}

 private:
  TransportContext& context_;
};

}  // namespace

std::unique_ptr<Transport> makeCudaTransport(TransportContext& context) { return std::make_unique<CudaTransport>(context); }

}  // namespace mooncake
