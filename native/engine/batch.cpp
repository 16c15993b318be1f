#include "engine/batch.h"

#include "engine/peer.h"

namespace mooncake {

namespace {

constexpr u64 MAX_SLICES = 1 << 22;

/** "record 3: destination segment 7": the beginning of every refusal. */
std::string where(size_t record, const char* side, u32 id) {
  return "record " + std::to_string(record) + ": " + side + " segment " + std::to_string(id);
}

bool within(u64 offset, u64 length, u64 available) { return offset <= available && length <= available - offset; }

Status leaves(size_t record, const char* side, u32 id, u64 offset, u64 length, u64 available) {
  return {Code::segment, where(record, side, id) + ": " + std::to_string(length) + " bytes at " +
                             std::to_string(offset) + " leave its " + std::to_string(available)};
}

}  // namespace

Status Batch::hold(MemoryTable& memory, u32 id, size_t record, const char* side, const Segment*& out) {
  const auto at = std::lower_bound(held_.begin(), held_.end(), id,
                                   [](const SegmentRef& ref, u32 wanted) { return ref->id < wanted; });
  if (at != held_.end() && (*at)->id == id) {
    out = &**at;
    return {};
  }
  SegmentRef ref = memory.hold(id);
  if (!ref) return {Code::segment, where(record, side, id) + " is not registered"};
  out = &*ref;
  files_ = files_ || out->backing == Backing::file;
  devices_ = devices_ || out->backing == Backing::device;
  dmabufs_ = dmabufs_ || out->backing == Backing::dmabuf;
  nodes_ = nodes_ || out->numaNode >= 0;
  held_.insert(at, std::move(ref));
  return {};
}

Status Batch::prepare(MemoryTable& memory, const Peer* peer, const SliceLimits& limits) {
  const Segment* source = nullptr;
  const Segment* destination = nullptr;
  RemoteSegment remote;
  bool knowsRemote = false;
  for (size_t i = 0; i < records_.size(); i++) {
    const Record& record = records_[i];
    if (record.length == 0) {
      return {Code::invalidArgument, "record " + std::to_string(i) + ": length is 0"};
    }
    if (Status status = checkRepeat(i, limits); !status.ok()) return status;
    const u64 bytes = record.length * repeat_.count;
    if (bytes_ + bytes < bytes_) {
      return {Code::invalidArgument, "record " + std::to_string(i) + ": the batch's bytes exceed 64 bits"};
    }
    bytes_ += bytes;
    const u64 sourceLength = repeat_.sourceExtent(record.length);
    const u64 destinationLength = repeat_.destinationExtent(record.length);
    if (op_ != Op::read) {
      if (source == nullptr || source->id != record.source) {
        if (Status status = hold(memory, record.source, i, "source", source); !status.ok()) return status;
      }
      if (!within(record.sourceOffset, sourceLength, source->length)) {
        return leaves(i, "source", record.source, record.sourceOffset, sourceLength, source->length);
      }
    }
    if (op_ != Op::write) {
      if (destination == nullptr || destination->id != record.destination) {
        if (Status status = hold(memory, record.destination, i, "destination", destination); !status.ok()) return status;
        if (destination->backing == Backing::file && !destination->writable) {
          return {Code::segment, where(i, "destination", record.destination) + " is a file opened for reading"};
        }
      }
      if (!within(record.destinationOffset, destinationLength, destination->length)) {
        return leaves(i, "destination", record.destination, record.destinationOffset, destinationLength, destination->length);
      }
    }
    if (op_ == Op::copy) continue;
    const bool read = op_ == Op::read;
    const char* const side = read ? "source" : "destination";
    const u32 id = read ? record.source : record.destination;
    const u64 offset = read ? record.sourceOffset : record.destinationOffset;
    if (!knowsRemote || remote.id != id) {
      if (!peer->segment(id, remote)) return {Code::segment, where(i, side, id) + " is not the peer's"};
      knowsRemote = true;
    }
    if (!read && !remote.writable) return {Code::segment, where(i, side, id) + " may be read, not written: so " + peer->name() + " has registered it"};
    if (!within(offset, record.length, remote.length)) return leaves(i, side, id, offset, record.length, remote.length);
  }
  if (bytes_ / limits.bytes > MAX_SLICES) {
    return {Code::invalidArgument, "the batch has " + std::to_string(bytes_) + " bytes: more than " +
                                       std::to_string(MAX_SLICES) + " slices of " + std::to_string(limits.bytes)};
  }
  cut(limits);
  if (repeat_.count == 1 && !order_) return {};
  for (const Slice& slice : slices_) {
    if (slice.devices != 0) continue;
    return {Code::invalidArgument, "record " + std::to_string(slice.first) +
                                       " names no memory of a GPU: such a batch has no repeats and no events"};
  }
  return {};
}

/** Repeats are not cut: each goes into a slice, and its extents are far from overflowing. */
Status Batch::checkRepeat(size_t record, const SliceLimits& limits) const {
  if (repeat_.count == 1) return {};
  const u64 length = records_[record].length;
  constexpr u64 FARTHEST = u64{1} << 34;
  if (repeat_.count == 0 || length > limits.deviceBytes / repeat_.count || repeat_.sourceStride > FARTHEST ||
      repeat_.destinationStride > FARTHEST) {
    return {Code::invalidArgument, "record " + std::to_string(record) + ": " + std::to_string(repeat_.count) + " runs of " +
                                       std::to_string(length) + " bytes, strides " + std::to_string(repeat_.sourceStride) + " and " +
                                       std::to_string(repeat_.destinationStride) + ": at least 1 run, at most " +
                                       std::to_string(limits.deviceBytes) + " bytes a record and 2^34 a stride"};
  }
  return {};
}

bool Batch::touchesFile(const Record& record) const {
  const auto isFile = [this](u32 id) {
    const Segment* const found = segment(id);
    return found->backing == Backing::file;
  };
  return (op_ != Op::read && isFile(record.source)) || (op_ != Op::write && isFile(record.destination));
}

u64 Batch::devicesOf(const Record& record) const {
  const auto bit = [this](u32 id) {
    const int device = segment(id)->device;
    return device < 0 ? 0 : u64{1} << (device % 64);
  };
  return (op_ != Op::read ? bit(record.source) : 0) | (op_ != Op::write ? bit(record.destination) : 0);
}

int Batch::nodeOf(const Record& record) const { return segment(op_ == Op::write ? record.source : record.destination)->numaNode; }

const PciPlace* Batch::placeOf(const Record& record) const {
  const PciPlace& place = segment(op_ == Op::write ? record.source : record.destination)->place;
  return place ? &place : nullptr;
}

bool Batch::unmapped(const Record& record) const {
  const auto is = [this](u32 id) { return segment(id)->backing == Backing::dmabuf; };
  return (op_ != Op::read && is(record.source)) || (op_ != Op::write && is(record.destination));
}

void Batch::cut(const SliceLimits& limits) {
  slices_.reserve(static_cast<size_t>(bytes_ / limits.bytes + records_.size() / limits.records + 1));
  Slice slice;
  slice.batch = this;
  const auto finish = [&](u32 next) {
    if (slice.count > 0) slices_.push_back(slice);
    slice.first = next;
    slice.count = 0;
    slice.skip = slice.tail = slice.bytes = 0;
  };
  for (u32 i = 0; i < records_.size(); i++) {
    const bool file = files_ && touchesFile(records_[i]);
    const u64 devices = devices_ ? devicesOf(records_[i]) : 0;
    const bool unmappedHere = dmabufs_ && unmapped(records_[i]);
    const int node = nodes_ ? nodeOf(records_[i]) : -1;
    // Of dma-bufs alone.
    const PciPlace* const place = dmabufs_ ? placeOf(records_[i]) : nullptr;
    const u64 mostBytes = devices != 0 ? limits.deviceBytes : limits.bytes;
    const u32 mostRecords = devices != 0 ? limits.deviceRecords : limits.records;
    const bool same = file == slice.file && devices == slice.devices && unmappedHere == slice.unmapped && node == slice.node &&
                      place == slice.place;
    if (!same || slice.count >= mostRecords) finish(i);
    slice.file = file;
    slice.devices = devices;
    slice.unmapped = unmappedHere;
    slice.node = node;
    slice.place = place;
    u64 left = records_[i].length * repeat_.count;
    if (repeat_.count > 1 && slice.bytes + left > mostBytes) finish(i);
    // A record that does not fit ends its slice where the slice is full, and goes on in the next.
    while (slice.bytes + left > mostBytes) {
      const u64 part = mostBytes - slice.bytes;
      if (part > 0) {
        slice.count++;
        slice.bytes += part;
        left -= part;
        slice.tail = left;
      }
      finish(i);
      slice.skip = records_[i].length - left;
    }
    slice.count++;
    slice.bytes += left;
  }
  finish(0);
}

}  // namespace mooncake
