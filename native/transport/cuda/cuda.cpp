#include "transport/cuda/cuda.h"

#include "transport/cuda/copier.h"


#include <bit>
#include <map>
#include <mutex>

namespace mooncake {

namespace {

using namespace cuda;

/** Slices go to a GPU that has a side of them, the one with less to do. Bytes are not verified on the way. */
class CudaLink final : public Link {
 public:
  CudaLink(TransportContext& context, LinkEvents& events) : context_(context), events_(events), pins_(context.memory) {
    capabilities_.copy = true;
    capabilities_.devices = true;
    capabilities_.sliceBytes = Copier::SLICE_BYTES;
    capabilities_.sliceRecords = Copier::SLICE_RECORDS;
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
    const Expected<Copier*> copier = copierFor(slice.devices);
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

  Expected<Copier*> copierFor(u64 devices) {
    const std::lock_guard lock(mutex_);
    if (closed_) return Status(Code::closed, "the engine is closed");
    Copier* best = nullptr;
    for (; devices != 0; devices &= devices - 1) {
      const int ordinal = std::countr_zero(devices);
      std::unique_ptr<Copier>& copier = copiers_[ordinal];
      if (!copier) {
        // Open already: its memory is registered.
        const Expected<const Gpu*> gpu = context_.gpus->open("cuda:" + std::to_string(ordinal));
        if (!gpu.ok()) return gpu.status;
        const auto settled = [this](Slice& slice, Status status) { events_.settled(slice, std::move(status), false); };
        copier = std::make_unique<Copier>(*gpu.value, pins_, context_.spin, settled);
      }
      if (best == nullptr || copier->load() < best->load()) best = copier.get();
    }
    return best;
  }

  TransportContext& context_;
  LinkEvents& events_;
  Pins pins_;
  const std::string name_ = "cuda";
  Capabilities capabilities_;
  std::mutex mutex_;
  std::map<int, std::unique_ptr<Copier>> copiers_;
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
