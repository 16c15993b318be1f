#include "transport/cuda/launcher.h"

#include <algorithm>

namespace mooncake::cuda {

namespace {

Pointer addressOf(const Segment& segment, u64 offset) {
  return segment.backing == Backing::device ? segment.deviceAddress + offset : reinterpret_cast<Pointer>(segment.base) + offset;
}

/** Of a copy: links of this transport carry nothing else. */
Pointer sourceOf(const Piece& piece) { return addressOf(*piece.source, piece.remoteOffset); }
Pointer destinationOf(const Piece& piece) { return addressOf(*piece.local, piece.localOffset); }

}  // namespace

Launcher::Launcher(const Gpu& gpu, Pins& pins, const Share& share)
    : gpu_(gpu),
      driver_(*gpu.driver),
      pins_(pins),
      mostBlocks_(static_cast<u32>(share.multiprocessors * gpu.multiprocessors)),
      ways_(mostBlocks_ > 0 && share.way != "engines", share.way != "kernel" || mostBlocks_ == 0, gpu.shared) {}

Status Launcher::prepare() {
  int least = 0;
  int greatest = 0;
  if (driver_.streamPriorities(&least, &greatest) != SUCCESS) least = 0;
  Status status;
  for (Stream& stream : streams_) {
    if (status.ok()) status = gpu_.status("cuStreamCreate", driver_.streamCreate(&stream, STREAM_NON_BLOCKING, least));
  }
  constexpr size_t EACH = RUNS * (sizeof(Run) + 2 * sizeof(u64));
  static_assert(SLICE_RECORDS * sizeof(Rows) <= RUNS * sizeof(Run));
  void* memory = nullptr;
  if (status.ok()) status = gpu_.status("cuMemHostAlloc for lists of runs", driver_.hostAllocate(&memory, SLOTS * EACH, HOST_PORTABLE));
  memory_ = static_cast<u8*>(memory);
  for (size_t i = 0; i < SLOTS && status.ok(); i++) {
    slots_[i].runs = reinterpret_cast<Run*>(memory_ + i * EACH);
    slots_[i].sums = reinterpret_cast<u64*>(slots_[i].runs + RUNS);
    status = gpu_.status("cuEventCreate", driver_.eventCreate(&slots_[i].done, EVENT_DISABLE_TIMING | EVENT_BLOCKING_SYNC));
  }
  return status;
}

void Launcher::unprepare() {
  for (Slot& slot : slots_) {
    if (slot.done != nullptr) driver_.eventDestroy(slot.done);
  }
  if (memory_ != nullptr) driver_.hostFree(memory_);
  for (const Stream stream : streams_) {
    if (stream != nullptr) driver_.streamDestroy(stream);
  }
}

Status Launcher::launch(Slot& slot, const Way* as) {
  const Slice& slice = *slot.slice;
  const Batch& batch = *slice.batch;
  Order* const order = batch.order();
  // A batch's events are recorded behind all of it: all of it is in one stream.
  const bool signals = order != nullptr && !order->signals.empty();
  const Stream stream = streams_[signals ? 0 : turns_++ % streams_.size()];
  const Repeat& repeat = batch.repeat();
  slot.work = {false, false, slice.bytes, u64{slice.count} * repeat.count};
  const bool addressable = pinAll(slot);
  const bool kernel = mostBlocks_ > 0 && addressable;
  slot.work.summed = slot.summed = batch.verify() && kernel && repeat.count == 1;
  const bool free = addressable && !slot.summed && (repeat.count == 1 || !kernel);
  if (free) slot.way = as != nullptr && ways_.allows(*as) ? *as : ways_.choose(slot.work);
  else slot.way = addressable ? Way::kernel : Way::engines;
  // To give the driver thousands of copies takes it as long as to make them.
  slot.launched = Clock::now();
  Status status;
  if (slot.way == Way::engines) {
    status = byEngines(slot, stream, addressable);
  } else {
    status = repeat.count > 1 ? byRows(slot, stream) : byKernel(slot, stream);
  }
  if (status.ok() && order != nullptr && order->left.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    for (const GpuEventPointer& event : order->signals) {
      if (status.ok()) status = gpu_.status("cuEventRecord for the batch", driver_.eventRecord(event->event, stream));
    }
  }
  if (status.ok()) status = gpu_.status("cuEventRecord", driver_.eventRecord(slot.done, stream));
  if (status.ok()) return status;
  // Part of it may be under way: nobody may have the memory back before that is over.
  driver_.streamSynchronize(stream);
  unpin(slot);
  return status;
}

Status Launcher::finish(Slot& slot) {
  unpin(slot);
  return slot.summed ? compare(slot) : Status();
}

bool Launcher::pin(Slot& slot, const Segment& segment) {
  if (segment.backing == Backing::device) return (gpu_.reach >> segment.device & 1) != 0;
  slot.work.host = true;
  if (std::find(slot.pinned.begin(), slot.pinned.end(), segment.id) != slot.pinned.end()) return true;
  if (!pins_.acquire(gpu_, segment)) return false;
  slot.pinned.push_back(segment.id);
  return true;
}

bool Launcher::pinAll(Slot& slot) {
  bool addressable = true;
  const Segment* last[2] = {};
  slot.slice->forEach([&](const Piece& piece) {
    const Segment* const segments[2] = {piece.source, piece.local};
    for (int i = 0; i < 2; i++) {
      if (segments[i] == last[i]) continue;
      last[i] = segments[i];
      addressable = pin(slot, *segments[i]) && addressable;
    }
  });
  return addressable;
}

void Launcher::unpin(Slot& slot) {
  for (const u32 segment : slot.pinned) pins_.release(segment);
  slot.pinned.clear();
}

u32 Launcher::blocks(const Slot& slot) const {
  const u32 wanted = slot.work.host ? HOST_BLOCKS : slot.summed ? SUMMED_BLOCKS : DEVICE_BLOCKS;
  return std::min(wanted, mostBlocks_);
}

Status Launcher::run(const char* what, Function kernel, u32 blocks, Stream stream, void** parameters) {
  return gpu_.status(what, driver_.launch(kernel, blocks, 1, 1, THREADS, 1, 1, 0, stream, parameters, nullptr));
}

void Launcher::list(Slot& slot, u64 cut) {
  slot.count = 0;
  slot.slice->forEach([&](const Piece& piece) {
    const Pointer source = sourceOf(piece);
    const Pointer destination = destinationOf(piece);
    for (u64 at = 0; at < piece.length; at += cut) {
      slot.runs[slot.count++] = {source + at, destination + at, std::min(cut, piece.length - at)};
    }
  });
}

Status Launcher::byKernel(Slot& slot, Stream stream) {
  const u32 most = blocks(slot);
  // Small slices are cut finer, so that every thread block (where they are summed: every warp) has some of it.
  const u64 parts = slot.summed ? u64{most} * WARPS * 8 : u64{most} * 4;
  list(slot, std::clamp<u64>(slot.slice->bytes / parts & ~u64{4095}, slot.summed ? SHORTEST_SUMMED : SHORTEST_CUT, LONGEST_RUN));
  Pointer runs = reinterpret_cast<Pointer>(slot.runs);
  Pointer sums = reinterpret_cast<Pointer>(slot.sums);
  u32 count = slot.count;
  void* parameters[] = {&runs, &count, &sums};
  if (!slot.summed) return run("cuLaunchKernel", gpu_.copy, std::min(most, count), stream, parameters);
  return run("cuLaunchKernel for copies with sums", gpu_.sum, std::min(most, (count + WARPS - 1) / WARPS), stream, parameters);
}

Status Launcher::byRows(Slot& slot, Stream stream) {
  const Repeat& repeat = slot.slice->batch->repeat();
  Rows* const rows = reinterpret_cast<Rows*>(slot.runs);
  u32 count = 0;
  slot.slice->forEach([&](const Piece& piece) {
    rows[count++] = {sourceOf(piece), destinationOf(piece), piece.length, repeat.count, repeat.sourceStride, repeat.destinationStride};
  });
  Pointer list = reinterpret_cast<Pointer>(rows);
  void* parameters[] = {&list, &count};
  return run("cuLaunchKernel for rows", gpu_.rows, std::min(blocks(slot), (count + WARPS - 1) / WARPS), stream, parameters);
}

/** One call where the driver has one for many copies, whose sides it can address itself. */
Status Launcher::byEngines(Slot& slot, Stream stream, bool oneCall) {
  const Repeat& repeat = slot.slice->batch->repeat();
  sources_.clear();
  destinations_.clear();
  lengths_.clear();
  slot.slice->forEach([&](const Piece& piece) {
    for (u32 i = 0; i < repeat.count; i++) {
      const Pointer source = sourceOf(piece) + i * repeat.sourceStride;
      const Pointer destination = destinationOf(piece) + i * repeat.destinationStride;
      if (!lengths_.empty() && sources_.back() + lengths_.back() == source && destinations_.back() + lengths_.back() == destination) {
        lengths_.back() += piece.length;
        continue;
      }
      sources_.push_back(source);
      destinations_.push_back(destination);
      lengths_.push_back(piece.length);
    }
  });
  if (oneCall && driver_.copyBatch != nullptr && lengths_.size() > 1) {
    CopyAttributes attributes{COPY_IN_STREAM_ORDER, {}, {}, 0};
    size_t from = 0;
    size_t failed = 0;
    return gpu_.status("cuMemcpyBatchAsync", driver_.copyBatch(destinations_.data(), sources_.data(), lengths_.data(), lengths_.size(),
                                                               &attributes, &from, 1, &failed, stream));
  }
  for (size_t i = 0; i < lengths_.size(); i++) {
    const Result result = driver_.copyAsync(destinations_[i], sources_[i], lengths_[i], stream);
    if (result != SUCCESS) return gpu_.status("cuMemcpyAsync", result);
  }
  return {};
}

Status Launcher::compare(const Slot& slot) const {
  for (u32 i = 0; i < slot.count; i++) {
    if (slot.sums[i] == slot.sums[slot.count + i]) continue;
    return {Code::corrupt, gpu_.uuid + ": " + std::to_string(slot.runs[i].length) + " bytes at address " +
                               std::to_string(slot.runs[i].destination) + " are not what was copied there"};
  }
  return {};
}

}  // namespace mooncake::cuda
