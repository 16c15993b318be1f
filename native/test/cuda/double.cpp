#include "test/cuda/double.h"

#include "test/cuda/double_state.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace mooncake::test {

State* state = nullptr;

Result fault(const char* symbol) {
  const auto found = state->faults.find(symbol);
  if (found == state->faults.end() || found->second.second == 0) return SUCCESS;
  found->second.second--;
  return found->second.first;
}

Block* blockOf(Pointer at, Pointer* base) {
  auto next = state->blocks.upper_bound(at);
  if (next == state->blocks.begin()) return nullptr;
  --next;
  if (at - next->first >= next->second.bytes) return nullptr;
  if (base != nullptr) *base = next->first;
  return &next->second;
}

namespace {

constexpr Result INVALID_VALUE = 1;
constexpr Result INVALID_CONTEXT = 201;
constexpr Result ILLEGAL_ADDRESS = 700;

thread_local std::vector<ContextTag*> stack;

ContextTag* current() { return stack.empty() ? nullptr : stack.back(); }

bool inside(const std::map<Pointer, u64>& ranges, Pointer at, u64 length) {
  auto next = ranges.upper_bound(at);
  if (next == ranges.begin()) return false;
  --next;
  return at - next->first <= next->second && length <= next->second - (at - next->first);
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
/** As the driver writes it; every machine with PCI has one there. */
Result devicePciBusId(char* address, int length, int) {
  return std::snprintf(address, static_cast<size_t>(length), "0000:00:00.0"), SUCCESS;
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
Result moduleFunction(Function* function, Module, const char* name) {
  return *function = reinterpret_cast<Function>(const_cast<char*>(name)), SUCCESS;
}
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
bool pending(const EventTag& event) {
  if (event.counts == nullptr) return event.recorded && !event.over;
  return std::atomic_ref(event.counts[1]).load() < std::atomic_ref(event.counts[0]).load();
}
Result eventRecord(Event event, Stream stream) {
  PLANTED("cuEventRecord");
  EventTag& itself = event->itself();
  if (itself.counts != nullptr) {
    const u64 number = ++std::atomic_ref(itself.counts[0]);
    enqueue(stream, [&itself, number] { std::atomic_ref(itself.counts[1]).store(number); });
    return SUCCESS;
  }
  itself.recorded = true;
  itself.over = false;
  enqueue(stream, [&itself] { itself.over = true; });
  return SUCCESS;
}
Result eventQuery(Event event) {
  const std::lock_guard lock(state->mutex);
  if (const Result planted = fault("cuEventQuery"); planted != SUCCESS) return planted;
  return pending(event->itself()) ? NOT_READY : state->broken;
}
Result eventSynchronize(Event event) {
  std::unique_lock lock(state->mutex);
  state->changed.wait(lock, [&] { return !pending(event->itself()); });
  if (const Result planted = fault("cuEventSynchronize"); planted != SUCCESS) return planted;
  return state->broken;
}
/** CRC-64/ECMA-182, by a table of what each byte comes to bit by bit. */
u64 sumOf(const u8* at, u64 length) {
  static const std::vector<u64> table = [] {
    std::vector<u64> made;
    for (u64 byte = 0; byte < 256; byte++) {
      u64 sum = byte << 56;
      for (int bit = 0; bit < 8; bit++) sum = (sum << 1) ^ ((sum >> 63) != 0 ? 0x42F0E1EBA9EA3693 : 0);
      made.push_back(sum);
    }
    return made;
  }();
  u64 sum = 0;
  for (u64 i = 0; i < length; i++) sum = (sum << 8) ^ table[sum >> 56 ^ at[i]];
  return sum;
}
/** What the kernel of that name does with one run; false: a side is not for it. */
bool copied(const ContextTag& context, Pointer to, Pointer from, u64 length) {
  if (!addressable(context, from, length) || !addressable(context, to, length)) return false;
  return move(to, from, length), true;
}
Result launch(Function function, unsigned blocks, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream stream,
              void** parameters, void**) {
  PLANTED("cuLaunchKernel");
  const Pointer list = *static_cast<Pointer*>(parameters[0]);
  const u32 count = *static_cast<u32*>(parameters[1]);
  const std::string kernel = reinterpret_cast<const char*>(function);
  const u64 each = kernel == "mooncake_rows" ? sizeof(Rows) : sizeof(Run);
  if (blocks == 0 || !inside(state->pinned, list, count * each)) return INVALID_VALUE;
  u64* const sums = kernel == "mooncake_sum" ? *static_cast<u64**>(parameters[2]) : nullptr;
  if (sums != nullptr && !inside(state->pinned, reinterpret_cast<Pointer>(sums), 2 * count * sizeof(u64))) return INVALID_VALUE;
  state->launches++;
  enqueue(stream, [=] {
    bool fine = true;
    for (u32 i = 0; i < count && kernel == "mooncake_rows"; i++) {
      const Rows& rows = reinterpret_cast<const Rows*>(list)[i];
      for (u64 row = 0; row < rows.count; row++) {
        fine = fine && copied(*stream->context, rows.destination + row * rows.destinationStride, rows.source + row * rows.sourceStride, rows.length);
      }
    }
    for (u32 i = 0; i < count && kernel != "mooncake_rows"; i++) {
      const Run& run = reinterpret_cast<const Run*>(list)[i];
      fine = fine && copied(*stream->context, run.destination, run.source, run.length);
      if (!fine || sums == nullptr) continue;
      sums[i] = sumOf(bytesOf(run.source), run.length);
      if (std::exchange(state->corrupting, false)) bytesOf(run.destination)[run.length / 2] ^= 1;
      sums[count + i] = sumOf(bytesOf(run.destination), run.length);
    }
    if (!fine) state->broken = ILLEGAL_ADDRESS;
  });
  return SUCCESS;
}
Result copyAsync(Pointer destination, Pointer source, size_t bytes, Stream stream) {
  PLANTED("cuMemcpyAsync");
  state->copied += bytes;
  enqueue(stream, [=] { move(destination, source, bytes); });
  return SUCCESS;
}
Result copyBatch(Pointer* destinations, Pointer* sources, size_t* bytes, size_t count, CopyAttributes*, size_t*, size_t, size_t*, Stream stream) {
  PLANTED("cuMemcpyBatchAsync");
  state->batches++;
  for (size_t i = 0; i < count; i++) {
    enqueue(stream, [stream, to = destinations[i], from = sources[i], length = bytes[i]] {
      if (!copied(*stream->context, to, from, length)) state->broken = ILLEGAL_ADDRESS;
    });
  }
  return SUCCESS;
}
Result deviceAttribute(int* value, int attribute, int) {
  return *value = attribute == ATTRIBUTE_MULTIPROCESSORS ? 132 : attribute == ATTRIBUTE_DMA_BUF ? 1 : 0, SUCCESS;
}
Result ipcExportEvent(IpcEventHandle* handle, Event event) {
  *handle = {};
  return std::memcpy(handle->bytes, &event, sizeof event), SUCCESS;
}
Result ipcOpenEvent(Event* event, IpcEventHandle handle) {
  PLANTED("cuIpcOpenEventHandle");
  EventTag* named = nullptr;
  std::memcpy(&named, handle.bytes, sizeof named);
  for (const auto& foreign : state->foreignEvents) {
    if (foreign.get() != named) continue;
    state->events++;
    *event = new EventTag;
    return (*event)->of = named, SUCCESS;
  }
  return INVALID_VALUE;
}
Result errorName(Result, const char** name) { return *name = "CUDA_ERROR_PLANTED", SUCCESS; }
Result errorText(Result, const char** text) { return *text = "planted", SUCCESS; }

Driver made() {
  Driver driver = {
    init, deviceCount, deviceGet, deviceName, deviceUuid, devicePciBusId, deviceMemory, contextRetain,
    contextRelease, contextPush, contextPop, canAccessPeer, enablePeerAccess, streamPriorities, moduleLoad, moduleUnload,
    moduleFunction, allocate, release, addressRange, hostAllocate, hostFree, hostRegister, hostUnregister, ipcExport, ipcOpen,
    ipcClose, deviceAttribute, ipcExportEvent, ipcOpenEvent, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
    nullptr, nullptr, nullptr, nullptr, nullptr, streamCreate, streamDestroy, streamSynchronize, eventCreate, eventDestroy, eventRecord, eventQuery,
    eventSynchronize, launch, copyAsync, errorName, errorText, copyBatch,
  };
  addVirtualCalls(driver);
  return driver;
}

}  // namespace

CudaDouble::CudaDouble(int gpus) {
  state = new State;
  state->contexts.resize(static_cast<size_t>(gpus));
  for (int i = 0; i < gpus; i++) state->contexts[static_cast<size_t>(i)].gpu = i;
}

CudaDouble::~CudaDouble() {
  for (const auto& [base, block] : state->blocks) {
    if (block.at == nullptr) std::free(reinterpret_cast<void*>(base));
  }
  delete std::exchange(state, nullptr);
}

const Driver* CudaDouble::driver() const {
  static const Driver driver_ = made();
  return &driver_;
}

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

IpcEventHandle CudaDouble::foreignEvent(size_t& number) {
  const std::lock_guard lock(state->mutex);
  number = state->foreignEvents.size();
  state->foreignEvents.push_back(std::make_unique<EventTag>());
  IpcEventHandle handle{};
  EventTag* const event = state->foreignEvents.back().get();
  std::memcpy(handle.bytes, &event, sizeof event);
  return handle;
}

void CudaDouble::setForeign(size_t number, bool over) {
  const std::lock_guard lock(state->mutex);
  state->foreignEvents[number]->recorded = true;
  state->foreignEvents[number]->over = over;
  state->changed.notify_all();
}

bool CudaDouble::foreignIsOver(size_t number) const {
  const std::lock_guard lock(state->mutex);
  return state->foreignEvents[number]->recorded && state->foreignEvents[number]->over;
}

void CudaDouble::corruptNext() {
  const std::lock_guard lock(state->mutex);
  state->corrupting = true;
}

u64 CudaDouble::batches() const {
  const std::lock_guard lock(state->mutex);
  return state->batches;
}

size_t CudaDouble::leaks() const {
  const std::lock_guard lock(state->mutex);
  size_t count = state->pinned.size() + state->events + state->streams + state->modules + state->made.size() + state->reserved.size();
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
