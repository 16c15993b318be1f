#include "transport/rdma/region.h"

#include <algorithm>
#include <cerrno>
#include <thread>

namespace mooncake::rdma {

namespace {

std::string refusal(const Device& device, const Segment& segment, int error) {
  std::string text = device.name() + ": " +
                     systemError("registering " + std::to_string(segment.length) + " bytes" + (segment.dmabuf >= 0 ? " of a dma-buf" : ""), error).detail;
  if (error == ENOMEM || error == EPERM) text += " (ulimit -l: locked memory)";
  return text;
}

}  // namespace

Expected<const Region*> Regions::add(u32 id) {
  SegmentRef segment = memory_.hold(id);
  if (!segment || addressOf(*segment) == 0) {
    return Status(Code::segment, "segment " + std::to_string(id) + " is not registered memory");
  }
  {
    std::unique_lock lock(state_->mutex);
    state_->settled.wait(lock, [&] { return !state_->pending.contains(id); });
    if (state_->closed) return Status(Code::closed, "RDMA is closed");
    const auto found = state_->regions.find(id);
    if (found != state_->regions.end()) return found->second.get();
    state_->pending[id] = true;
  }
  Expected<std::unique_ptr<Region>> made = make(*segment);
  const Region* region = nullptr;
  bool kept = false;
  {
    const std::unique_lock lock(state_->mutex);
    state_->pending.erase(id);
    kept = made.ok() && !state_->closed && memory_.atRelease(id, [weak = std::weak_ptr(state_), id] {
      const std::shared_ptr<State> state = weak.lock();
      if (!state) return;
      std::unique_ptr<Region> gone;
      {
        const std::unique_lock guard(state->mutex);
        const auto found = state->regions.find(id);
        if (found == state->regions.end()) return;
        gone = std::move(found->second);
        state->regions.erase(found);
      }
      drop(*state, *gone);
    });
    // The hold of this call keeps it from being released before.
    if (kept) region = (state_->regions[id] = std::move(made.value)).get();
  }
  state_->settled.notify_all();
  if (!made.ok()) return made.status;
  if (kept) return region;
  drop(*state_, *made.value);
  return Status(Code::segment, "segment " + std::to_string(id) + " is being taken away");
}

Expected<std::unique_ptr<Region>> Regions::make(const Segment& segment) {
  auto region = std::make_unique<Region>();
  region->keys.resize(state_->devices.size());
  std::vector<int> errors(state_->devices.size());
  const auto registerWith = [&](size_t i) {
    Device& device = *state_->devices[i];
    unsigned access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ;
    if (segment.writable) access |= IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
    if (device.options().relaxedOrdering) access |= IBV_ACCESS_RELAXED_ORDERING;
    ibv_mr* const handle = segment.dmabuf >= 0
                               ? device.verbs().regDmabufMr(device.pd(), segment.fdOffset, segment.length,
                                                            addressOf(segment), segment.dmabuf, access)
                               : device.verbs().regMr(device.pd(), segment.base, segment.length, access);
    if (handle == nullptr) errors[i] = errno;
    else region->keys[i] = {handle->lkey, handle->rkey, handle, {}};
  };
  // Pinning pages is what takes the time, and each device does it for itself.
  std::vector<std::thread> threads;
  for (size_t i = 1; i < state_->devices.size(); i++) threads.emplace_back(registerWith, i);
  if (!state_->devices.empty()) registerWith(0);
  for (std::thread& thread : threads) thread.join();
  bool any = false;
  std::string refusals;
  for (size_t i = 0; i < state_->devices.size(); i++) {
    any = any || region->keys[i].handle != nullptr;
    if (region->keys[i].handle != nullptr) continue;
    region->keys[i].refusal = refusal(*state_->devices[i], segment, errors[i]);
    refusals += (refusals.empty() ? "" : "; ") + region->keys[i].refusal;
  }
  const bool unknown = std::all_of(errors.begin(), errors.end(), [](int error) { return error == EOPNOTSUPP || error == ENOSYS; });
  if (!any) return Status(unknown ? Code::notSupported : Code::system, "segment " + std::to_string(segment.id) + ": " + refusals);
  return region;
}

void Regions::drop(const State& state, const Region& region) {
  for (size_t i = 0; i < state.devices.size(); i++) {
    if (region.keys[i].handle != nullptr) state.devices[i]->verbs().deregMr(region.keys[i].handle);
  }
}

void Regions::close() {
  std::unordered_map<u32, std::unique_ptr<Region>> gone;
  {
    std::unique_lock lock(state_->mutex);
    state_->closed = true;
    gone.swap(state_->regions);
    state_->settled.wait(lock, [&] { return state_->pending.empty(); });
  }
  for (const auto& [id, region] : gone) drop(*state_, *region);
}

}  // namespace mooncake::rdma
