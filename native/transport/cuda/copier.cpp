#include "transport/cuda/copier.h"

#include <sched.h>
#include <sys/prctl.h>

#include <algorithm>

namespace mooncake::cuda {

namespace {

Pointer addressOf(const Segment& segment, u64 offset) {
  return segment.backing == Backing::device ? segment.deviceAddress + offset : reinterpret_cast<Pointer>(segment.base) + offset;
}

struct Sides {
  const Segment* source;
  u64 sourceOffset;
  const Segment* destination;
  u64 destinationOffset;
};

/** Of a copy: links of this transport carry nothing else. */
Sides sidesOf(const Piece& piece) { return {piece.source, piece.remoteOffset, piece.local, piece.localOffset}; }

}  // namespace

Copier::Copier(const Gpu& gpu, Pins& pins, std::chrono::microseconds spin, Settled settled)
    : gpu_(gpu), driver_(*gpu.driver), pins_(pins), spin_(spin), settled_(std::move(settled)) {}

void Copier::post(Slice& slice) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      load_.fetch_add(slice.bytes, std::memory_order_relaxed);
      queue_.push_back(&slice);
      if (!started_) thread_ = std::thread([this] { work(); });
      started_ = true;
      changed_.notify_one();
      return;
    }
  }
  settled_(slice, {Code::closed, "the engine is closed"});
}

void Copier::cancel(Batch& batch) {
  std::vector<Slice*> dropped;
  {
    const std::lock_guard lock(mutex_);
    const auto kept = std::stable_partition(queue_.begin(), queue_.end(), [&](Slice* slice) { return slice->batch != &batch; });
    dropped.assign(kept, queue_.end());
    queue_.erase(kept, queue_.end());
  }
  for (Slice* slice : dropped) over(*slice, {Code::aborted, "the batch was cancelled"});
}

void Copier::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void Copier::over(Slice& slice, Status status) {
  load_.fetch_sub(slice.bytes, std::memory_order_relaxed);
  settled_(slice, std::move(status));
}

void Copier::work() {
  const Current current(gpu_);
  broken_ = prepare();
  for (;;) {
    Slice* next = nullptr;
    {
      std::unique_lock lock(mutex_);
      const bool idle = launched_ == finished_;
      if (idle) changed_.wait(lock, [this] { return closed_ || !queue_.empty(); });
      if (!queue_.empty() && launched_ - finished_ < SLOTS) {
        next = queue_.front();
        queue_.pop_front();
      } else if (closed_ && idle) {
        break;
      }
    }
    if (next != nullptr) {
      start(*next);
      continue;
    }
    Slot& oldest = slots_[finished_ % SLOTS];
    await(oldest);
    finish(oldest);
  }
  unprepare();
}

/** Looks again and again while a copy is short: to be woken up by the driver takes longer than many a copy does. */
void Copier::await(const Slot& slot) {
  const auto since = Clock::now();
  for (auto waited = Clock::duration{}; waited < LONG_WAIT; waited = Clock::now() - since) {
    if (driver_.eventQuery(slot.done) != NOT_READY) return;
    if (waited < spin_) {
      ::sched_yield();
    } else {
      std::this_thread::sleep_for(LOOK_EVERY);
    }
  }
}

Status Copier::prepare() {
  // Sleeps as short as asked for.
  ::prctl(PR_SET_TIMERSLACK, 1000UL);
  int least = 0;
  int greatest = 0;
  if (driver_.streamPriorities(&least, &greatest) != SUCCESS) least = 0;
  Status status;
  for (Stream& stream : streams_) {
    if (status.ok()) status = gpu_.status("cuStreamCreate", driver_.streamCreate(&stream, STREAM_NON_BLOCKING, least));
  }
  void* memory = nullptr;
  if (status.ok()) {
    status = gpu_.status("cuMemHostAlloc for lists of runs", driver_.hostAllocate(&memory, SLOTS * RUNS * sizeof(Run), HOST_PORTABLE));
  }
  memory_ = static_cast<Run*>(memory);
  for (size_t i = 0; i < SLOTS && status.ok(); i++) {
    slots_[i].runs = memory_ + i * RUNS;
    status = gpu_.status("cuEventCreate", driver_.eventCreate(&slots_[i].done, EVENT_DISABLE_TIMING | EVENT_BLOCKING_SYNC));
  }
  return status;
}

void Copier::unprepare() {
  for (Slot& slot : slots_) {
    if (slot.done != nullptr) driver_.eventDestroy(slot.done);
  }
  if (memory_ != nullptr) driver_.hostFree(memory_);
  for (const Stream stream : streams_) {
    if (stream != nullptr) driver_.streamDestroy(stream);
  }
}

void Copier::start(Slice& slice) {
  if (!broken_.ok()) return over(slice, broken_);
  Slot& slot = slots_[launched_ % SLOTS];
  slot.slice = &slice;
  const Stream stream = streams_[launched_ % streams_.size()];
  Status status = launch(slot, stream);
  if (status.ok()) status = gpu_.status("cuEventRecord", driver_.eventRecord(slot.done, stream));
  if (status.ok()) {
    launched_++;
    return;
  }
  // Part of it may be under way: nobody may have the memory back before that is over.
  driver_.streamSynchronize(stream);
  for (const u32 segment : slot.pinned) pins_.release(segment);
  slot.pinned.clear();
  over(slice, std::move(status));
}

bool Copier::pin(Slot& slot, const Segment& segment) {
  if (segment.backing == Backing::device) return (gpu_.reach >> segment.device & 1) != 0;
  if (std::find(slot.pinned.begin(), slot.pinned.end(), segment.id) != slot.pinned.end()) return true;
  if (!pins_.acquire(gpu_, segment)) return false;
  slot.pinned.push_back(segment.id);
  return true;
}

Status Copier::launch(Slot& slot, Stream stream) {
  Slice& slice = *slot.slice;
  bool addressable = true;
  bool host = false;
  const Segment* last[2] = {};
  slice.forEach([&](const Piece& piece) {
    const Segment* const segments[2] = {sidesOf(piece).source, sidesOf(piece).destination};
    for (int i = 0; i < 2; i++) {
      if (segments[i] == last[i]) continue;
      last[i] = segments[i];
      host = host || segments[i]->backing != Backing::device;
      addressable = pin(slot, *segments[i]) && addressable;
    }
  });
  const u32 blocks = host ? HOST_BLOCKS : DEVICE_BLOCKS;
  // Small slices are cut finer, so that every block has some of it.
  const u64 cut = std::clamp<u64>(slice.bytes / (blocks * 4) & ~u64{4095}, SHORTEST_CUT, LONGEST_RUN);
  u32 count = 0;
  Status status;
  slice.forEach([&](const Piece& piece) {
    const Sides sides = sidesOf(piece);
    const Pointer source = addressOf(*sides.source, sides.sourceOffset);
    const Pointer destination = addressOf(*sides.destination, sides.destinationOffset);
    if (!addressable) {
      if (status.ok()) status = gpu_.status("cuMemcpyAsync", driver_.copyAsync(destination, source, piece.length, stream));
      return;
    }
    for (u64 at = 0; at < piece.length; at += cut) {
      slot.runs[count++] = {source + at, destination + at, std::min(cut, piece.length - at)};
    }
  });
  if (!addressable || !status.ok()) return status;
  Pointer runs = reinterpret_cast<Pointer>(slot.runs);
  void* parameters[] = {&runs, &count};
  return gpu_.status("cuLaunchKernel", driver_.launch(gpu_.copy, std::min(blocks, count), 1, 1, THREADS, 1, 1, 0, stream,
                                                      parameters, nullptr));
}

void Copier::finish(Slot& slot) {
  Status status = gpu_.status("copying", driver_.eventSynchronize(slot.done));
  // A context that has failed fails for good.
  if (!status.ok()) broken_ = status;
  for (const u32 segment : slot.pinned) pins_.release(segment);
  slot.pinned.clear();
  Slice& slice = *slot.slice;
  slot.slice = nullptr;
  finished_++;
  over(slice, std::move(status));
}

}  // namespace mooncake::cuda
