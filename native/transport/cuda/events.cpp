#include "transport/cuda/events.h"

namespace mooncake::cuda {

GpuEvent::~GpuEvent() {
  const Current current(gpu);
  gpu.driver->eventDestroy(event);
}

Expected<bool> Order::ready() {
  if (begun.load(std::memory_order_acquire)) return true;
  for (const GpuEventPointer& wait : waits) {
    const Result result = wait->gpu.driver->eventQuery(wait->event);
    if (result == NOT_READY) return false;
    if (result != SUCCESS) return wait->gpu.status("cuEventQuery of what the batch waits for", result);
  }
  begun.store(true, std::memory_order_release);
  return true;
}

Expected<u32> Events::add(const Gpu& gpu, Event event) {
  auto added = std::make_shared<const GpuEvent>(gpu, event);
  const std::lock_guard lock(mutex_);
  events_.emplace(next_, std::move(added));
  return next_++;
}

Expected<u32> Events::create(const Gpu& gpu) {
  const Current current(gpu);
  Event event = nullptr;
  const Result result = gpu.driver->eventCreate(&event, EVENT_DISABLE_TIMING | EVENT_INTERPROCESS);
  if (result != SUCCESS) return gpu.status("cuEventCreate", result);
  return add(gpu, event);
}

Expected<u32> Events::open(const Gpu& gpu, const IpcEventHandle& handle) {
  const Current current(gpu);
  Event event = nullptr;
  const Result result = gpu.driver->ipcOpenEvent(&event, handle);
  if (result != SUCCESS) return Status(Code::invalidArgument, gpu.status("cuIpcOpenEventHandle", result).detail);
  return add(gpu, event);
}

Expected<IpcEventHandle> Events::exportEvent(u32 id) const {
  const Expected<GpuEventPointer> found = find(id);
  if (!found.ok()) return found.status;
  const Gpu& gpu = found.value->gpu;
  const Current current(gpu);
  IpcEventHandle handle{};
  if (Status status = gpu.status("cuIpcGetEventHandle", gpu.driver->ipcExportEvent(&handle, found.value->event)); !status.ok()) {
    return status;
  }
  return handle;
}

Status Events::close(u32 id) {
  GpuEventPointer closed;
  const std::lock_guard lock(mutex_);
  const auto found = events_.find(id);
  if (found == events_.end()) return {Code::invalidArgument, "event " + std::to_string(id) + " is not open"};
  closed = std::move(found->second);
  events_.erase(found);
  return {};
}

void Events::closeAll() {
  std::map<u32, GpuEventPointer> all;
  const std::lock_guard lock(mutex_);
  all.swap(events_);
}

Expected<GpuEventPointer> Events::find(u32 id) const {
  const std::lock_guard lock(mutex_);
  const auto found = events_.find(id);
  if (found == events_.end()) return Status(Code::invalidArgument, "event " + std::to_string(id) + " is not open");
  return found->second;
}

Expected<std::shared_ptr<Order>> Events::order(const std::vector<u32>& waits, const std::vector<u32>& signals) const {
  auto made = std::make_shared<Order>();
  for (const auto& [ids, events] : {std::pair{&waits, &made->waits}, std::pair{&signals, &made->signals}}) {
    for (const u32 id : *ids) {
      Expected<GpuEventPointer> found = find(id);
      if (!found.ok()) return found.status;
      events->push_back(std::move(found.value));
    }
  }
  for (const GpuEventPointer& event : made->signals) {
    if (&event->gpu == &made->signals.front()->gpu) continue;
    return Status(Code::invalidArgument, "a batch records events of one GPU, not of " + made->signals.front()->gpu.uuid + " and " +
                                             event->gpu.uuid);
  }
  return made;
}

}  // namespace mooncake::cuda
