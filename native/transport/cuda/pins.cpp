#include "transport/cuda/pins.h"

namespace mooncake::cuda {

Pins::Pins(MemoryTable& memory) : memory_(memory) {
  watch_ = memory.watch([this](const Segment& segment) { removed(segment); });
}

Pins::~Pins() {
  memory_.unwatch(watch_);
  for (auto& [id, pin] : pins_) unpin(pin);
}

bool Pins::acquire(const Gpu& gpu, const Segment& segment) {
  const std::lock_guard lock(mutex_);
  auto found = pins_.find(segment.id);
  if (found == pins_.end()) {
    Pin pin;
    pin.held = memory_.hold(segment.id);
    // It is being taken away already: this copy is its last, and not worth the pinning.
    if (!pin.held) return false;
    const Current current(gpu);
    pin.gpu = &gpu;
    pin.base = segment.base;
    pin.pinned = gpu.driver->hostRegister(segment.base, segment.length, HOST_PORTABLE) == SUCCESS;
    found = pins_.emplace(segment.id, std::move(pin)).first;
  }
  Pin& pin = found->second;
  if (!pin.pinned || pin.leaving) return false;
  pin.uses++;
  return true;
}

void Pins::release(u32 segment) {
  const std::lock_guard lock(mutex_);
  const auto found = pins_.find(segment);
  if (--found->second.uses > 0 || !found->second.leaving) return;
  unpin(found->second);
  pins_.erase(found);
}

void Pins::removed(const Segment& segment) {
  const std::lock_guard lock(mutex_);
  const auto found = pins_.find(segment.id);
  if (found == pins_.end()) return;
  found->second.leaving = true;
  if (found->second.uses > 0) return;
  unpin(found->second);
  pins_.erase(found);
}

void Pins::unpin(Pin& pin) {
  if (!pin.pinned) return;
  const Current current(*pin.gpu);
  pin.gpu->driver->hostUnregister(pin.base);
}

}  // namespace mooncake::cuda
