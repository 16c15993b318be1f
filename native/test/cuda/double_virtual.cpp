// Memory of cuMemCreate on the simulated driver: an allocation is bytes of this process, a descriptor of it says which one.
#include "test/cuda/double_state.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace mooncake::test {

namespace {

constexpr Result INVALID_VALUE = 1;
constexpr u64 GRANULE = 64 << 10;

Result granularity(size_t* bytes, const AllocationProperties*, int) { return *bytes = GRANULE, SUCCESS; }
Result create(Allocation* allocation, size_t bytes, const AllocationProperties* properties, u64) {
  PLANTED("cuMemCreate");
  if (bytes % GRANULE != 0 || properties->location.type != LOCATION_DEVICE) return INVALID_VALUE;
  *allocation = state->nextMade++;
  return state->made[*allocation] = {std::vector<u8>(bytes), properties->location.id - 100, 1}, SUCCESS;
}
bool mapped(Allocation allocation) {
  for (const auto& [base, block] : state->blocks) {
    if (block.allocation == allocation) return true;
  }
  return false;
}
void forgetUnused(Allocation allocation) {
  if (state->made[allocation].handles == 0 && !mapped(allocation)) state->made.erase(allocation);
}
Result drop(Allocation allocation) {
  const std::lock_guard lock(state->mutex);
  if (state->made.count(allocation) == 0 || state->made[allocation].handles == 0) return INVALID_VALUE;
  state->made[allocation].handles--;
  return forgetUnused(allocation), SUCCESS;
}
Result retain(Allocation* allocation, void* address) {
  const std::lock_guard lock(state->mutex);
  const Block* const block = blockOf(reinterpret_cast<Pointer>(address));
  if (block == nullptr || block->allocation == 0) return INVALID_VALUE;
  state->made[*allocation = block->allocation].handles++;
  return SUCCESS;
}
Result properties(AllocationProperties* found, Allocation allocation) {
  const std::lock_guard lock(state->mutex);
  *found = {};
  return found->location = {LOCATION_DEVICE, 100 + state->made[allocation].gpu}, SUCCESS;
}
/** The descriptor's bytes say which allocation it is. */
Result exportAllocation(void* handle, Allocation allocation, int type, u64) {
  PLANTED("cuMemExportToShareableHandle");
  const int fd = ::memfd_create("allocation", MFD_CLOEXEC);
  if (type != HANDLE_POSIX_FD || ::write(fd, &allocation, sizeof allocation) != sizeof allocation) return INVALID_VALUE;
  return std::memcpy(handle, &fd, sizeof fd), SUCCESS;
}
Result importAllocation(Allocation* allocation, void* handle, int) {
  PLANTED("cuMemImportFromShareableHandle");
  const int fd = static_cast<int>(reinterpret_cast<intptr_t>(handle));
  if (::pread(fd, allocation, sizeof *allocation, 0) != sizeof *allocation || state->made.count(*allocation) == 0) return INVALID_VALUE;
  return state->made[*allocation].handles++, SUCCESS;
}
Result reserve(Pointer* pointer, size_t bytes, size_t, Pointer, u64) {
  PLANTED("cuMemAddressReserve");
  *pointer = reinterpret_cast<Pointer>(::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  return state->reserved[*pointer] = bytes, SUCCESS;
}
Result unreserve(Pointer pointer, size_t bytes) {
  const std::lock_guard lock(state->mutex);
  const auto mapped = state->blocks.lower_bound(pointer);
  if (mapped != state->blocks.end() && mapped->first < pointer + bytes) return INVALID_VALUE;
  if (state->reserved.erase(pointer) == 0) return INVALID_VALUE;
  return ::munmap(reinterpret_cast<void*>(pointer), bytes), SUCCESS;
}
Result mapAt(Pointer pointer, size_t bytes, size_t, Allocation allocation, u64) {
  PLANTED("cuMemMap");
  Made& made = state->made[allocation];
  auto around = state->reserved.upper_bound(pointer);
  if (around == state->reserved.begin() || bytes != made.bytes.size()) return INVALID_VALUE;
  --around;
  if (pointer + bytes > around->first + around->second) return INVALID_VALUE;
  return state->blocks[pointer] = {bytes, made.gpu, false, 0, made.bytes.data(), allocation}, SUCCESS;
}
Result unmapAt(Pointer pointer, size_t) {
  const std::lock_guard lock(state->mutex);
  const auto found = state->blocks.find(pointer);
  if (found == state->blocks.end()) return INVALID_VALUE;
  const Allocation allocation = found->second.allocation;
  state->blocks.erase(found);
  return forgetUnused(allocation), SUCCESS;
}
Result setAccess(Pointer pointer, size_t, const Access*, size_t count) {
  PLANTED("cuMemSetAccess");
  return count > 0 && state->blocks.count(pointer) > 0 ? SUCCESS : INVALID_VALUE;
}
Result rangeHandle(void* handle, Pointer pointer, size_t bytes, int, u64) {
  PLANTED("cuMemGetHandleForAddressRange");
  const int fd = blockOf(pointer + bytes / 2) == nullptr || bytes % 4096 != 0 ? -1 : ::memfd_create("dmabuf", MFD_CLOEXEC);
  return std::memcpy(handle, &fd, sizeof fd), fd < 0 ? INVALID_VALUE : SUCCESS;
}

}  // namespace

void addVirtualCalls(Driver& driver) {
  driver.granularity = granularity;
  driver.create = create;
  driver.retain = retain;
  driver.drop = drop;
  driver.properties = properties;
  driver.exportAllocation = exportAllocation;
  driver.importAllocation = importAllocation;
  driver.reserve = reserve;
  driver.unreserve = unreserve;
  driver.map = mapAt;
  driver.unmap = unmapAt;
  driver.setAccess = setAccess;
  driver.rangeHandle = rangeHandle;
}

}  // namespace mooncake::test
