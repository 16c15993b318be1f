// The planner against its promises: steps cover the copy once and in order, direct ones are aligned and lie
// in granules that the copy has to itself, bounced ones fit their buffer.
#include "test/check.h"
#include "test/file/fixture.h"

namespace mooncake::file::test {

namespace {

Segment fileSegment(u32 granule, u32 memoryAlignment) {
  Segment segment;
  segment.backing = Backing::file;
  segment.fd = 100;
  segment.length = u64{1} << 40;
  if (granule != 0) segment.direct = {101, granule, memoryAlignment};
  return segment;
}

u64 position(const End& end, const Segment& segment) {
  return end.file ? end.offset : static_cast<u64>(end.memory - segment.base);
}

void checkDirect(const End& end, u64 length) {
  if (!end.direct) return;
  CHECK(end.file && end.file->direct.fd >= 0);
  CHECK(end.offset % end.file->direct.granule == 0);
  CHECK(length % end.file->direct.granule == 0);
}

u64 checkPlan(const Transfer& transfer) {
  std::vector<Step> steps;
  plan(transfer, steps);
  u64 done = 0;
  u64 direct = 0;
  for (const Step& step : steps) {
    CHECK(step.length > 0);
    CHECK(position(step.source, *transfer.source) == transfer.sourceOffset + done);
    CHECK(position(step.target, *transfer.target) == transfer.targetOffset + done);
    checkDirect(step.source, step.length);
    checkDirect(step.target, step.length);
    const bool anyDirect = step.source.direct || step.target.direct;
    if (step.source.file && step.target.file) {
      CHECK(step.bounce);
    } else if (anyDirect && !step.bounce) {
      const End& memory = step.source.file ? step.target : step.source;
      const End& file = step.source.file ? step.source : step.target;
      CHECK(reinterpret_cast<std::uintptr_t>(memory.memory) % file.file->direct.memoryAlignment == 0);
    }
    if (step.bounce) CHECK(step.length <= BOUNCE_BYTES);
    if (anyDirect) direct += step.length;
    done += step.length;
  }
  CHECK(done == transfer.length);
  return direct;
}

} // namespace

TEST(file_plan, covers_every_copy_within_its_alignment) {
  std::mt19937_64 random(11);
  alignas(4096) static u8 base[1];
  for (int i = 0; i < 20'000; i++) {
    const u32 granule = upTo(random, 4) == 0 ? 0 : 4096u << upTo(random, 2);
    const Segment files[2] = {fileSegment(granule, 512u << upTo(random, 3)), fileSegment(4096, 512)};
    Segment memory;
    memory.base = base;
    memory.length = u64{1} << 40;
    const u64 step = upTo(random, 1) == 0 ? 1 : 512;
    Transfer transfer{&files[0], upTo(random, 1 << 16) * step, &memory, upTo(random, 1 << 16) * step,
                      1 + upTo(random, 1 << 20)};
    const u64 shape = upTo(random, 2);
    if (shape == 1) std::swap(transfer.source, transfer.target);
    if (shape == 2) transfer.target = &files[1];
    checkPlan(transfer);
  }
}

TEST(file_plan, moves_whole_pages_directly) {
  alignas(4096) static u8 base[1];
  const Segment file = fileSegment(4096, 512);
  Segment memory;
  memory.base = base;
  memory.length = u64{1} << 40;
  CHECK(checkPlan({&file, 8192, &memory, 0, 65'536}) == 65'536);
  CHECK(checkPlan({&memory, 512, &file, 4096, 4096}) == 4096);
  CHECK(checkPlan({&file, 100, &memory, 100, 65'536}) == 61'440);
  // Memory at an odd address goes through a bounce buffer, directly all the same.
  CHECK(checkPlan({&memory, 3, &file, 0, 1 << 20}) == 1 << 20);
  // Too little for three calls.
  CHECK(checkPlan({&file, 100, &memory, 0, 9000}) == 0);
}

} // namespace mooncake::file::test
