#include "transport/shm/transfer.h"

#include <algorithm>

namespace mooncake::shm {

namespace {

/** Small enough that a slice keeps several threads busy, large enough that handing it over costs nothing. A job through
    process_vm is larger: each may cost a message, and the kernel a start. */
u64 jobBytes(Reach reach) {
  switch (reach) {
    case Reach::mapped: return 512 << 10;
    case Reach::vm: return 1 << 20;
    case Reach::staged: return SLOT_BYTES;
  }
  return SLOT_BYTES;
}

}  // namespace

void Transfer::add(const std::shared_ptr<Grant>& grant, u8* local, u64 offset, u64 length) {
  if (length == 0) return;
  if (!extents.empty()) {
    Extent& last = extents.back();
    if (last.grant == grant.get() && last.local + last.length == local && last.offset + last.length == offset) {
      last.length += length;
      return;
    }
  }
  if (grants.empty() || grants.back() != grant) grants.push_back(grant);
  extents.push_back({local, grant.get(), offset, length});
}

void Transfer::cut() {
  std::vector<Extent> cutExtents;
  cutExtents.reserve(extents.size());
  for (Extent extent : extents) {
    const Reach reach = verify && extent.grant->reach == Reach::vm ? Reach::staged : extent.grant->reach;
    while (extent.length > 0) {
      if (jobs.empty() || jobs.back().reach != reach || jobs.back().count == MAX_PIECES ||
          jobs.back().bytes >= jobBytes(reach)) {
        Job job;
        job.transfer = this;
        job.reach = reach;
        job.first = static_cast<u32>(cutExtents.size());
        jobs.push_back(job);
      }
      Job& job = jobs.back();
      const u64 length = std::min(extent.length, jobBytes(reach) - job.bytes);
      cutExtents.push_back({extent.local, extent.grant, extent.offset, length});
      job.count++;
      job.bytes += length;
      extent.local += length;
      extent.offset += length;
      extent.length -= length;
    }
  }
  extents = std::move(cutExtents);
  remaining = static_cast<u32>(jobs.size()) + 1;
}

}  // namespace mooncake::shm
