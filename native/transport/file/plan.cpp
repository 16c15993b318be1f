#include "transport/file/plan.h"

#include <algorithm>

namespace mooncake::file {

namespace {

/** Fewer direct bytes than this do not pay for being cut out of a copy that has edges. */
constexpr u64 SMALLEST_MIDDLE = 16 << 10;

bool isFile(const Segment& segment) { return segment.backing == Backing::file; }

/** The end of a step, `done` bytes into the copy. */
End endOf(const Segment& segment, u64 offset, bool direct) {
  if (!isFile(segment)) return {nullptr, 0, false, segment.base + offset};
  return {&segment, offset, direct, nullptr};
}

bool wholeGranules(const End& end, u64 length) {
  const DirectAccess& direct = end.file->direct;
  return direct.fd >= 0 && end.offset % direct.granule == 0 && length % direct.granule == 0;
}

bool memoryAligned(const End& memory, const End& file) {
  return reinterpret_cast<std::uintptr_t>(memory.memory) % file.file->direct.memoryAlignment == 0;
}

} // namespace

void plan(const Transfer& transfer, std::vector<Step>& steps) {
  const bool sourceIsFile = isFile(*transfer.source);
  const bool targetIsFile = isFile(*transfer.target);
  // A write is what needs care, so a copy between files is cut at the target's granules.
  const Segment& guide = targetIsFile ? *transfer.target : *transfer.source;
  const u64 guideOffset = targetIsFile ? transfer.targetOffset : transfer.sourceOffset;

  const auto add = [&](u64 begin, u64 end, bool direct) {
    while (begin < end) {
      Step step;
      step.source = endOf(*transfer.source, transfer.sourceOffset + begin, direct);
      step.target = endOf(*transfer.target, transfer.targetOffset + begin, direct);
      if (sourceIsFile && targetIsFile) {
        step.bounce = true;
      } else if (direct) {
        step.bounce = sourceIsFile ? !memoryAligned(step.target, step.source)
                                   : !memoryAligned(step.source, step.target);
      }
      step.length = step.bounce ? std::min(end - begin, BOUNCE_BYTES) : end - begin;
      if (sourceIsFile && targetIsFile)
        step.source.direct = direct && wholeGranules(step.source, step.length);
      begin += step.length;
      steps.push_back(step);
    }
  };

  const u64 granule = guide.direct.granule;
  if (guide.direct.fd < 0) return add(0, transfer.length, false);
  const u64 head = std::min(transfer.length, (granule - guideOffset % granule) % granule);
  const u64 middle = (transfer.length - head) / granule * granule;
  const bool whole = middle == transfer.length;
  if (middle == 0 || (!whole && middle < SMALLEST_MIDDLE)) return add(0, transfer.length, false);
  add(0, head, false);
  add(head, head + middle, true);
  add(head + middle, transfer.length, false);
}

} // namespace mooncake::file
