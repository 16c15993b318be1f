#include "test/cuda/library_shared.h"

#include "test/cuda/double_state.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

namespace mooncake::test {

namespace {

using namespace cuda;

constexpr Result INVALID_VALUE = 1;
constexpr u64 GRANULE = 64 << 10;
constexpr u64 PAGE = 4096;
constexpr u64 EVENT = 0x746e657665'6d67;
/** Whose allocation it is, as the name of its memfd has it; a test's own memfd is the first GPU's. */
constexpr char NAME[] = "simulated-allocation-of-gpu-";

struct Shareable {
  int fd = -1;
  u64 bytes = 0;
  int gpu = 0;
  u32 uses = 0;
};
struct Part {
  u64 bytes = 0;
  Allocation allocation = 0;
};
/** Addresses that no processor may touch, and where their bytes are; mapped part by part. */
struct Reserved {
  u64 bytes = 0;
  u8* mirror = nullptr;
  std::map<Pointer, Part> parts{};
};
/** The first bytes of an event's handle. */
struct NamedEvent {
  u64 magic;
  pid_t pid;
  int fd;
};
static_assert(sizeof(NamedEvent) <= sizeof(IpcEventHandle));

std::mutex guard;
std::map<Allocation, Shareable> made;
std::map<Pointer, Reserved> reserved;
std::map<Event, int> sharedEvents;
Allocation nextMade = 1;

const Driver& within() { return *simulated().driver(); }

void dropUse(Allocation allocation) {
  const auto found = made.find(allocation);
  if (--found->second.uses > 0) return;
  ::close(found->second.fd);
  made.erase(found);
}

Allocation keep(int fd, u64 bytes, int gpu) {
  made[nextMade] = {fd, bytes, gpu, 1};
  return nextMade++;
}

/** The reservation around an address; null: there is none. With the lock held. */
Reserved* around(Pointer at, Pointer& base) {
  auto found = reserved.upper_bound(at);
  if (found == reserved.begin()) return nullptr;
  --found;
  base = found->first;
  return at < base + found->second.bytes ? &found->second : nullptr;
}
/** What is mapped around an address; null: nothing. With the lock held. */
const Part* partOf(Pointer at, Pointer& start) {
  Pointer base = 0;
  const Reserved* const range = around(at, base);
  if (range == nullptr) return nullptr;
  for (const auto& [first, part] : range->parts) {
    start = first;
    if (at >= first && at < first + part.bytes) return &part;
  }
  return nullptr;
}

Result create(Allocation* allocation, size_t bytes, const AllocationProperties* properties, u64) {
  if (bytes % GRANULE != 0 || properties->location.type != LOCATION_DEVICE) return INVALID_VALUE;
  const int gpu = properties->location.id - 100;
  const int fd = ::memfd_create((NAME + std::to_string(gpu)).c_str(), MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) return OUT_OF_MEMORY;
  const std::lock_guard lock(guard);
  return *allocation = keep(fd, bytes, gpu), SUCCESS;
}
Result drop(Allocation allocation) {
  const std::lock_guard lock(guard);
  if (made.count(allocation) == 0) return INVALID_VALUE;
  return dropUse(allocation), SUCCESS;
}
Result retain(Allocation* allocation, void* address) {
  const std::lock_guard lock(guard);
  Pointer start = 0;
  const Part* const part = partOf(reinterpret_cast<Pointer>(address), start);
  if (part == nullptr) return INVALID_VALUE;
  made[*allocation = part->allocation].uses++;
  return SUCCESS;
}
Result properties(AllocationProperties* found, Allocation allocation) {
  const std::lock_guard lock(guard);
  *found = {};
  return found->location = {LOCATION_DEVICE, 100 + made[allocation].gpu}, SUCCESS;
}
Result exportAllocation(void* handle, Allocation allocation, int type, u64) {
  const std::lock_guard lock(guard);
  const auto found = made.find(allocation);
  if (type != HANDLE_POSIX_FD || found == made.end()) return INVALID_VALUE;
  const int fd = ::fcntl(found->second.fd, F_DUPFD_CLOEXEC, 0);
  return std::memcpy(handle, &fd, sizeof fd), fd < 0 ? INVALID_VALUE : SUCCESS;
}
/** A descriptor of anything else is refused. */
Result importAllocation(Allocation* allocation, void* handle, int type) {
  const int given = static_cast<int>(reinterpret_cast<intptr_t>(handle));
  char path[256] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(given);
  struct stat status{};
  if (type != HANDLE_POSIX_FD || ::readlink(link.c_str(), path, sizeof path - 1) < 0 || ::fstat(given, &status) != 0) return INVALID_VALUE;
  if (std::strncmp(path, "/memfd:", 7) != 0) return INVALID_VALUE;
  const char* const name = std::strstr(path, NAME);
  const int fd = ::fcntl(given, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return INVALID_VALUE;
  const std::lock_guard lock(guard);
  return *allocation = keep(fd, static_cast<u64>(status.st_size), name == nullptr ? 0 : std::atoi(name + sizeof NAME - 1)), SUCCESS;
}
Result reserve(Pointer* pointer, size_t bytes, size_t, Pointer, u64) {
  const auto room = [&] { return ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0); };
  void* const untouchable = room();
  void* const mirror = room();
  if (untouchable == MAP_FAILED || mirror == MAP_FAILED) return OUT_OF_MEMORY;
  const std::lock_guard lock(guard);
  *pointer = reinterpret_cast<Pointer>(untouchable);
  return reserved[*pointer] = {bytes, static_cast<u8*>(mirror)}, SUCCESS;
}
Result unreserve(Pointer pointer, size_t bytes) {
  const std::lock_guard lock(guard);
  const auto found = reserved.find(pointer);
  if (found == reserved.end() || found->second.bytes != bytes || !found->second.parts.empty()) return INVALID_VALUE;
  simulated().forget(pointer);
  ::munmap(found->second.mirror, bytes);
  ::munmap(reinterpret_cast<void*>(pointer), bytes);
  return reserved.erase(found), SUCCESS;
}
Result mapAt(Pointer pointer, size_t bytes, size_t, Allocation allocation, u64) {
  const std::lock_guard lock(guard);
  Pointer base = 0;
  Reserved* const range = around(pointer, base);
  const auto found = made.find(allocation);
  if (range == nullptr || found == made.end() || found->second.bytes != bytes || pointer + bytes > base + range->bytes) return INVALID_VALUE;
  u8* const mirror = range->mirror + (pointer - base);
  if (::mmap(mirror, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, found->second.fd, 0) == MAP_FAILED) return OUT_OF_MEMORY;
  // To copies it is memory from the first to the last byte, as it is to a GPU's.
  if (range->parts.empty() && !simulated().adopt(base, range->bytes, range->mirror)) return INVALID_VALUE;
  found->second.uses++;
  range->parts[pointer] = {bytes, allocation};
  return SUCCESS;
}
Result unmapAt(Pointer pointer, size_t bytes) {
  const std::lock_guard lock(guard);
  Pointer base = 0;
  Reserved* const range = around(pointer, base);
  if (range == nullptr || range->parts.count(pointer) == 0 || range->parts[pointer].bytes != bytes) return INVALID_VALUE;
  ::mmap(range->mirror + (pointer - base), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  dropUse(range->parts[pointer].allocation);
  return range->parts.erase(pointer), SUCCESS;
}
Result setAccess(Pointer pointer, size_t, const Access*, size_t count) {
  const std::lock_guard lock(guard);
  Pointer start = 0;
  return count > 0 && partOf(pointer, start) != nullptr ? SUCCESS : INVALID_VALUE;
}
Result addressRange(Pointer* base, size_t* bytes, Pointer at) {
  {
    const std::lock_guard lock(guard);
    if (const Part* const part = partOf(at, *base); part != nullptr) return *bytes = part->bytes, SUCCESS;
  }
  return within().addressRange(base, bytes, at);
}

u64* countsOf(int fd) {
  void* const counts = ::mmap(nullptr, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return counts == MAP_FAILED ? nullptr : static_cast<u64*>(counts);
}
Result shared(Event* event, int fd) {
  u64* const counts = countsOf(fd);
  if (counts == nullptr || within().eventCreate(event, 0) != SUCCESS) {
    ::close(fd);
    return INVALID_VALUE;
  }
  (*event)->counts = counts;
  const std::lock_guard lock(guard);
  return sharedEvents[*event] = fd, SUCCESS;
}
Result eventCreate(Event* event, unsigned flags) {
  if ((flags & EVENT_INTERPROCESS) == 0) return within().eventCreate(event, flags);
  // The driver has no interprocess event with timing.
  const int fd = (flags & EVENT_DISABLE_TIMING) == 0 ? -1 : ::memfd_create("simulated-event", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, PAGE) != 0) return INVALID_VALUE;
  return shared(event, fd);
}
Result eventDestroy(Event event) {
  {
    const std::lock_guard lock(guard);
    if (const auto found = sharedEvents.find(event); found != sharedEvents.end()) {
      ::munmap(event->counts, PAGE);
      ::close(found->second);
      sharedEvents.erase(found);
    }
  }
  return within().eventDestroy(event);
}
Result ipcExportEvent(IpcEventHandle* handle, Event event) {
  const std::lock_guard lock(guard);
  const auto found = sharedEvents.find(event);
  if (found == sharedEvents.end()) return INVALID_VALUE;
  const NamedEvent named{EVENT, ::getpid(), found->second};
  *handle = {};
  return std::memcpy(handle->bytes, &named, sizeof named), SUCCESS;
}
/** As the driver does: not one of this process's own. */
Result ipcOpenEvent(Event* event, IpcEventHandle handle) {
  NamedEvent named{};
  std::memcpy(&named, handle.bytes, sizeof named);
  if (named.magic != EVENT || named.pid == ::getpid()) return INVALID_VALUE;
  const std::string path = "/proc/" + std::to_string(named.pid) + "/fd/" + std::to_string(named.fd);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  return fd < 0 ? INVALID_VALUE : shared(event, fd);
}

}  // namespace

void addSharedCalls(Driver& driver) {
  driver.create = create;
  driver.drop = drop;
  driver.retain = retain;
  driver.properties = properties;
  driver.exportAllocation = exportAllocation;
  driver.importAllocation = importAllocation;
  driver.reserve = reserve;
  driver.unreserve = unreserve;
  driver.map = mapAt;
  driver.unmap = unmapAt;
  driver.setAccess = setAccess;
  driver.addressRange = addressRange;
  driver.eventCreate = eventCreate;
  driver.eventDestroy = eventDestroy;
  driver.ipcExportEvent = ipcExportEvent;
  driver.ipcOpenEvent = ipcOpenEvent;
}

}  // namespace mooncake::test
