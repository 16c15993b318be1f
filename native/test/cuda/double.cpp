#include "test/cuda/double.h"

#include "transport/cuda/copier.h"

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace mooncake::cuda {

// What the handles of driver.h stand for here.
struct ContextTag {
  int gpu = 0;
  u64 peers = 0;
  u32 retained = 0;
};
struct EventTag {
  bool recorded = false;
  bool over = false;
};
struct StreamTag {
  ContextTag* context = nullptr;
  std::deque<std::function<void()>> queue;
  bool ending = false;
  u64 begun = 0;
  u64 ended = 0;
  std::thread thread;
};

}  // namespace mooncake::cuda

namespace mooncake::test {

namespace {

using namespace cuda;

constexpr Result INVALID_VALUE = 1;
constexpr Result INVALID_CONTEXT = 201;
constexpr Result ILLEGAL_ADDRESS = 700;

struct Block {
  u64 bytes = 0;
  int gpu = 0;
  bool foreign = false;
  u32 opened = 0;
  /** Where its bytes are; null: at its address. */
  u8* at = nullptr;
};

struct State {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<ContextTag> contexts;
  std::map<Pointer, Block> blocks;
  std::map<Pointer, u64> pinned;
  std::map<std::string, std::pair<Result, int>> faults;
  size_t events = 0;
  size_t streams = 0;
  size_t modules = 0;
  bool held = false;
  bool separate = false;
  Result broken = SUCCESS;
  u64 launches = 0;
  u64 copied = 0;
  u64 opened = 0;
};
/** Never freed by a destructor of the process: threads may wait in it. */
State* state = nullptr;
thread_local std::vector<ContextTag*> stack;

/** The planted fault of a call, or what broke the context before. */
Result fault(const char* symbol) {
  const auto found = state->faults.find(symbol);
  if (found == state->faults.end() || found->second.second == 0) return SUCCESS;
  found->second.second--;
  return found->second.first;
}
#define PLANTED(symbol)                                                \
  const std::lock_guard lock(state->mutex);                            \
  if (const Result planted = fault(symbol); planted != SUCCESS) return planted

ContextTag* current() { return stack.empty() ? nullptr : stack.back(); }

bool inside(const std::map<Pointer, u64>& ranges, Pointer at, u64 length) {
  auto next = ranges.upper_bound(at);
  if (next == ranges.begin()) return false;
  --next;
  return at - next->first <= next->second && length <= next->second - (at - next->first);
}
Block* blockOf(Pointer at, Pointer* base = nullptr) {
  auto next = state->blocks.upper_bound(at);
  if (next == state->blocks.begin()) return nullptr;
  --next;
  if (at - next->first >= next->second.bytes) return nullptr;
  if (base != nullptr) *base = next->first;
  return &next->second;
}
/** Whether a kernel in this context may touch it. */
bool addressable(const ContextTag& context, Pointer at, u64 length) {
  if (inside(state->pinned, at, length)) return true;
  Pointer base = 0;
  const Block* const block = blockOf(at, &base);
  if (block == nullptr || length > block->bytes - (at - base) || (block->foreign && block->opened == 0)) return false;
  return block->gpu == context.gpu || (context.peers >> block->gpu & 1) != 0;
}

u8* bytesOf(Pointer at) {
  Pointer base = 0;
  const Block* const block = blockOf(at, &base);
  return block != nullptr && block->at != nullptr ? block->at + (at - base) : reinterpret_cast<u8*>(at);
}

void move(Pointer to, Pointer from, u64 length) { std::memmove(bytesOf(to), bytesOf(from), length); }

void serve(StreamTag* stream) {
  std::unique_lock lock(state->mutex);
  for (;;) {
    state->changed.wait(lock, [&] { return stream->ending || (!stream->queue.empty() && !state->held); });
    if (stream->queue.empty() && stream->ending) return;
    if (stream->queue.empty()) continue;
    const auto task = std::move(stream->queue.front());
    stream->queue.pop_front();
    task();
    stream->ended++;
    state->changed.notify_all();
  }
}

void enqueue(StreamTag* stream, std::function<void()> task) {
  stream->begun++;
  stream->queue.push_back(std::move(task));
  state->changed.notify_all();
}

Result init(unsigned) { return SUCCESS; }
Result deviceCount(int* count) {
  PLANTED("cuDeviceGetCount");
  return *count = static_cast<int>(state->contexts.size()), SUCCESS;
}
Result deviceGet(int* device, Ordinal ordinal) { return *device = 100 + ordinal, SUCCESS; }
Result deviceName(char* name, int length, int) { return std::snprintf(name, static_cast<size_t>(length), "Simulated"), SUCCESS; }
Result deviceUuid(Uuid* uuid, int device) {
  for (int i = 0; i < 16; i++) uuid->bytes[i] = static_cast<u8>(i);
  return uuid->bytes[15] = static_cast<u8>(device), SUCCESS;
}
Result deviceMemory(size_t* bytes, int) { return *bytes = u64{8} << 30, SUCCESS; }
Result contextRetain(Context* context, int device) {
  PLANTED("cuDevicePrimaryCtxRetain");
  *context = &state->contexts[static_cast<size_t>(device - 100)];
  (*context)->retained++;
  return SUCCESS;
}
Result contextRelease(int device) {
  const std::lock_guard lock(state->mutex);
  return state->contexts[static_cast<size_t>(device - 100)].retained--, SUCCESS;
}
Result contextPush(Context context) { return stack.push_back(context), SUCCESS; }
Result contextPop(Context* context) {
  if (stack.empty()) return INVALID_CONTEXT;
  *context = stack.back();
  return stack.pop_back(), SUCCESS;
}
Result canAccessPeer(int* can, int, int) { return *can = state->separate ? 0 : 1, SUCCESS; }
Result enablePeerAccess(Context peer, unsigned) {
  PLANTED("cuCtxEnablePeerAccess");
  if (current() == nullptr) return INVALID_CONTEXT;
  return current()->peers |= u64{1} << peer->gpu, SUCCESS;
}
Result streamPriorities(int* least, int* greatest) { return *least = 0, *greatest = -5, SUCCESS; }
Result moduleLoad(Module* module, const void*) {
  PLANTED("cuModuleLoadData");
  state->modules++;
  return *module = reinterpret_cast<Module>(8), SUCCESS;
}
Result moduleUnload(Module) {
  const std::lock_guard lock(state->mutex);
  return state->modules--, SUCCESS;
}
Result moduleFunction(Function* function, Module, const char*) { return *function = reinterpret_cast<Function>(8), SUCCESS; }
Result allocate(Pointer* pointer, size_t bytes) {
  PLANTED("cuMemAlloc");
  if (current() == nullptr) return INVALID_CONTEXT;
  *pointer = reinterpret_cast<Pointer>(std::calloc(1, bytes));
  return state->blocks[*pointer] = {bytes, current()->gpu}, SUCCESS;
}
Result release(Pointer pointer) {
  const std::lock_guard lock(state->mutex);
  if (state->blocks.erase(pointer) == 0) return INVALID_VALUE;
  return std::free(reinterpret_cast<void*>(pointer)), SUCCESS;
}
Result addressRange(Pointer* base, size_t* bytes, Pointer at) {
  const std::lock_guard lock(state->mutex);
  const Block* const block = blockOf(at, base);
  if (block == nullptr) return INVALID_VALUE;
  return *bytes = block->bytes, SUCCESS;
}
Result hostAllocate(void** address, size_t bytes, unsigned) {
  PLANTED("cuMemHostAlloc");
  *address = std::calloc(1, bytes);
  return state->pinned[reinterpret_cast<Pointer>(*address)] = bytes, SUCCESS;
}
Result hostFree(void* address) {
  const std::lock_guard lock(state->mutex);
  if (state->pinned.erase(reinterpret_cast<Pointer>(address)) == 0) return INVALID_VALUE;
  return std::free(address), SUCCESS;
}
Result hostRegister(void* address, size_t bytes, unsigned) {
  PLANTED("cuMemHostRegister");
  if (current() == nullptr) return INVALID_CONTEXT;
  return state->pinned[reinterpret_cast<Pointer>(address)] = bytes, SUCCESS;
}
Result hostUnregister(void* address) {
  const std::lock_guard lock(state->mutex);
  return state->pinned.erase(reinterpret_cast<Pointer>(address)) == 1 ? SUCCESS : INVALID_VALUE;
}
Result ipcExport(IpcHandle* handle, Pointer pointer) {
  PLANTED("cuIpcGetMemHandle");
  *handle = {};
  return std::memcpy(handle->bytes, &pointer, sizeof pointer), SUCCESS;
}
Result ipcOpen(Pointer* pointer, IpcHandle handle, unsigned) {
  PLANTED("cuIpcOpenMemHandle");
  std::memcpy(pointer, handle.bytes, sizeof *pointer);
  const auto found = state->blocks.find(*pointer);
  if (found == state->blocks.end() || !found->second.foreign || found->second.gpu != current()->gpu) return INVALID_VALUE;
  found->second.opened++;
  return state->opened++, SUCCESS;
}
Result ipcClose(Pointer pointer) {
  const std::lock_guard lock(state->mutex);
  const auto found = state->blocks.find(pointer);
  if (found == state->blocks.end() || found->second.opened == 0) return INVALID_VALUE;
  return found->second.opened--, SUCCESS;
}
Result streamCreate(Stream* stream, unsigned, int) {
  PLANTED("cuStreamCreateWithPriority");
  *stream = new StreamTag;
  (*stream)->context = current();
  (*stream)->thread = std::thread(serve, *stream);
  return state->streams++, SUCCESS;
}
Result streamDestroy(Stream stream) {
  {
    const std::lock_guard lock(state->mutex);
    stream->ending = true;
    state->streams--;
    state->changed.notify_all();
  }
  stream->thread.join();
  return delete stream, SUCCESS;
}
Result streamSynchronize(Stream stream) {
  std::unique_lock lock(state->mutex);
  const u64 begun = stream->begun;
  state->changed.wait(lock, [&] { return stream->ended >= begun; });
  return state->broken;
}
Result eventCreate(Event* event, unsigned) {
  PLANTED("cuEventCreate");
  state->events++;
  return *event = new EventTag, SUCCESS;
}
Result eventDestroy(Event event) {
  const std::lock_guard lock(state->mutex);
  state->events--;
  return delete event, SUCCESS;
}
Result eventRecord(Event event, Stream stream) {
  PLANTED("cuEventRecord");
  event->recorded = true;
  event->over = false;
  enqueue(stream, [event] { event->over = true; });
  return SUCCESS;
}
Result eventQuery(Event event) {
  const std::lock_guard lock(state->mutex);
  return event->over ? state->broken : NOT_READY;
}
Result eventSynchronize(Event event) {
  std::unique_lock lock(state->mutex);
  state->changed.wait(lock, [&] { return event->over; });
  if (const Result planted = fault("cuEventSynchronize"); planted != SUCCESS) return planted;
  return state->broken;
}
Result launch(Function, unsigned blocks, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream stream,
              void** parameters, void**) {
  PLANTED("cuLaunchKernel");
  const Pointer list = *static_cast<Pointer*>(parameters[0]);
  const u32 count = *static_cast<u32*>(parameters[1]);
  if (blocks == 0 || !inside(state->pinned, list, count * sizeof(Run))) return INVALID_VALUE;
  state->launches++;
  enqueue(stream, [stream, list, count] {
    for (const Run* run = reinterpret_cast<const Run*>(list); run != reinterpret_cast<const Run*>(list) + count; run++) {
      if (!addressable(*stream->context, run->source, run->length) || !addressable(*stream->context, run->destination, run->length)) {
        state->broken = ILLEGAL_ADDRESS;
        return;
      }
      move(run->destination, run->source, run->length);
    }
  });
  return SUCCESS;
}
Result copyAsync(Pointer destination, Pointer source, size_t bytes, Stream stream) {
  PLANTED("cuMemcpyAsync");
  state->copied += bytes;
  enqueue(stream, [=] { move(destination, source, bytes); });
  return SUCCESS;
}
Result errorName(Result, const char** name) { return *name = "CUDA_ERROR_PLANTED", SUCCESS; }
Result errorText(Result, const char** text) { return *text = "planted", SUCCESS; }

const Driver DRIVER = {
    init, deviceCount, deviceGet, deviceName, deviceUuid, deviceMemory, contextRetain,
    contextRelease, contextPush, contextPop, canAccessPeer, enablePeerAccess, streamPriorities, moduleLoad, moduleUnload,
    moduleFunction, allocate, release, addressRange, hostAllocate, hostFree, hostRegister, hostUnregister, ipcExport, ipcOpen,
    ipcClose, streamCreate, streamDestroy, streamSynchronize, eventCreate, eventDestroy, eventRecord, eventQuery,
    eventSynchronize, launch, copyAsync, errorName, errorText,
};

}  // namespace

CudaDouble::CudaDouble(int gpus) {
  state = new State;
  state->contexts.resize(static_cast<size_t>(gpus));
  for (int i = 0; i < gpus; i++) state->contexts[static_cast<size_t>(i)].gpu = i;
}

CudaDouble::~CudaDouble() {
  for (const auto& [base, block] : state->blocks) std::free(reinterpret_cast<void*>(base));
  delete std::exchange(state, nullptr);
}

const Driver* CudaDouble::driver() const { return &DRIVER; }

void CudaDouble::fail(const std::string& symbol, Result result, int times) {
  const std::lock_guard lock(state->mutex);
  state->faults[symbol] = {result, times};
}

void CudaDouble::hold() {
  const std::lock_guard lock(state->mutex);
  state->held = true;
}

void CudaDouble::release() {
  const std::lock_guard lock(state->mutex);
  state->held = false;
  state->changed.notify_all();
}

void CudaDouble::separate() { state->separate = true; }

u8* CudaDouble::foreign(int gpu, u64 bytes, IpcHandle& handle) {
  const std::lock_guard lock(state->mutex);
  u8* const memory = static_cast<u8*>(std::calloc(1, bytes));
  const Pointer base = reinterpret_cast<Pointer>(memory);
  state->blocks[base] = {bytes, gpu, true};
  handle = {};
  std::memcpy(handle.bytes, &base, sizeof base);
  return memory;
}

bool CudaDouble::adopt(Pointer base, u64 bytes, u8* at) {
  const std::lock_guard lock(state->mutex);
  if (current() == nullptr) return false;
  state->blocks[base] = {bytes, current()->gpu, false, 0, at};
  return true;
}

void CudaDouble::forget(Pointer base) {
  const std::lock_guard lock(state->mutex);
  state->blocks.erase(base);
}

size_t CudaDouble::leaks() const {
  const std::lock_guard lock(state->mutex);
  size_t count = state->pinned.size() + state->events + state->streams + state->modules;
  for (const auto& [base, block] : state->blocks) count += block.foreign ? block.opened : 1;
  for (const ContextTag& context : state->contexts) count += context.retained;
  return count;
}

u64 CudaDouble::launches() const {
  const std::lock_guard lock(state->mutex);
  return state->launches;
}

u64 CudaDouble::copied() const {
  const std::lock_guard lock(state->mutex);
  return state->copied;
}

u64 CudaDouble::opened() const {
  const std::lock_guard lock(state->mutex);
  return state->opened;
}

}  // namespace mooncake::test
