// The simulated driver as a library that stands in for libcuda.so.1 (MOONCAKE_CUDA_LIBRARY), for tests of what is built on the
// accelerator: the same exported names, found in driver.h's list.
//
// Memory of a simulated GPU is a memfd. Its address is one that no processor may touch (PROT_NONE), in whichever process;
// simulated copies go by a second mapping. What forgets to copy dies, or is refused by the kernel, as it would be with a GPU.
// An IPC handle names the owner's descriptor, so that real processes share such memory and outlive each other. What else
// they share is in library_shared.cpp.
#include "test/cuda/library_shared.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <mutex>

namespace mooncake::test {

/** For the life of the process: threads of streams may outlast destructors. */
CudaDouble& simulated() {
  constexpr int GPUS = 2;
  static CudaDouble& made = *new CudaDouble(GPUS);
  return made;
}

namespace {

using namespace cuda;

constexpr Result INVALID_VALUE = 1;
constexpr u64 PAGE = 4096;
constexpr u64 MAGIC = 0x656c62756f64'6d67;

struct Memory {
  int fd = -1;
  u8* untouchable = nullptr;
  u8* bytes = nullptr;
  u64 mapped = 0;
};

/** The first bytes of an IPC handle. */
struct Named {
  u64 magic;
  pid_t pid;
  int fd;
  u64 mapped;
};
static_assert(sizeof(Named) <= sizeof(IpcHandle));

std::mutex guard;
std::map<Pointer, Memory> owned;
std::map<Pointer, Memory> opened;

void unmap(const Memory& memory) {
  if (memory.untouchable != nullptr) ::munmap(memory.untouchable, memory.mapped);
  if (memory.bytes != nullptr) ::munmap(memory.bytes, memory.mapped);
  ::close(memory.fd);
}

/** Maps a descriptor twice, and tells the simulation. False: no memory, or no context is current. */
bool map(int fd, u64 mapped, Memory& memory) {
  const auto at = [&](int protection) {
    void* const place = ::mmap(nullptr, mapped, protection, MAP_SHARED, fd, 0);
    return place == MAP_FAILED ? nullptr : static_cast<u8*>(place);
  };
  memory = {fd, at(PROT_NONE), at(PROT_READ | PROT_WRITE), mapped};
  if (memory.untouchable != nullptr && memory.bytes != nullptr &&
      simulated().adopt(reinterpret_cast<Pointer>(memory.untouchable), mapped, memory.bytes)) {
    return true;
  }
  unmap(memory);
  return false;
}

Result take(std::map<Pointer, Memory>& from, Pointer pointer) {
  const std::lock_guard lock(guard);
  const auto found = from.find(pointer);
  if (found == from.end()) return INVALID_VALUE;
  simulated().forget(pointer);
  unmap(found->second);
  from.erase(found);
  return SUCCESS;
}

Result allocate(Pointer* pointer, size_t bytes) {
  const u64 mapped = (bytes + PAGE - 1) / PAGE * PAGE;
  const int fd = ::memfd_create("simulated-gpu", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(mapped)) != 0) {
    ::close(fd);
    return OUT_OF_MEMORY;
  }
  Memory memory;
  if (!map(fd, mapped, memory)) return OUT_OF_MEMORY;
  const std::lock_guard lock(guard);
  *pointer = reinterpret_cast<Pointer>(memory.untouchable);
  owned.emplace(*pointer, memory);
  return SUCCESS;
}

Result release(Pointer pointer) { return take(owned, pointer); }

Result ipcExport(IpcHandle* handle, Pointer pointer) {
  const std::lock_guard lock(guard);
  const auto found = owned.find(pointer);
  if (found == owned.end()) return INVALID_VALUE;
  const Named named{MAGIC, ::getpid(), found->second.fd, found->second.mapped};
  *handle = {};
  std::memcpy(handle->bytes, &named, sizeof named);
  return SUCCESS;
}

/** As the driver does: not one of this process's own. */
Result ipcOpen(Pointer* pointer, IpcHandle handle, unsigned) {
  Named named{};
  std::memcpy(&named, handle.bytes, sizeof named);
  if (named.magic != MAGIC || named.pid == ::getpid()) return INVALID_VALUE;
  const std::string path = "/proc/" + std::to_string(named.pid) + "/fd/" + std::to_string(named.fd);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return INVALID_VALUE;
  Memory memory;
  if (!map(fd, named.mapped, memory)) return INVALID_VALUE;
  const std::lock_guard lock(guard);
  *pointer = reinterpret_cast<Pointer>(memory.untouchable);
  opened.emplace(*pointer, memory);
  return SUCCESS;
}

Result ipcClose(Pointer pointer) { return take(opened, pointer); }

/** The default stream is there without being made. */
Result eventRecord(Event event, Stream stream) {
  const Driver& driver = *simulated().driver();
  if (stream != nullptr) return driver.eventRecord(event, stream);
  static Stream first = nullptr;
  const std::lock_guard lock(guard);
  if (first == nullptr) {
    if (const Result result = driver.streamCreate(&first, 0, 0); result != SUCCESS) return result;
  }
  return driver.eventRecord(event, first);
}

Driver exported() {
  Driver driver = *simulated().driver();
  driver.allocate = allocate;
  driver.free = release;
  driver.ipcExport = ipcExport;
  driver.ipcOpen = ipcOpen;
  driver.ipcClose = ipcClose;
  driver.eventRecord = eventRecord;
  addSharedCalls(driver);
  return driver;
}

/** Calls what `exported` has, of whatever type. */
template <auto Field, class Call = std::remove_reference_t<decltype(std::declval<Driver&>().*Field)>>
struct Forward;
template <auto Field, class... Arguments>
struct Forward<Field, Result (*)(Arguments...)> {
  static Result call(Arguments... arguments) {
    static const Driver driver = exported();
    return (driver.*Field)(arguments...);
  }
};

}  // namespace

// Each name of the list, as an indirect function: the dynamic linker asks once which one it is.
#define MOONCAKE_CUDA_EXPORT(field, symbol, parameters)                                                  \
  extern "C" Result(*resolve_##field()) parameters { return Forward<&Driver::field>::call; }              \
  extern "C" __attribute__((visibility("default"), ifunc("resolve_" #field))) Result exported_##field parameters asm(symbol);
MOONCAKE_CUDA_CALLS(MOONCAKE_CUDA_EXPORT)
#undef MOONCAKE_CUDA_EXPORT

// What a driver does not have: whatever streams are given waits in between, as behind a long kernel.
extern "C" __attribute__((visibility("default"))) void mooncakeDoubleHold() { simulated().hold(); }
extern "C" __attribute__((visibility("default"))) void mooncakeDoubleRelease() { simulated().release(); }

}  // namespace mooncake::test
