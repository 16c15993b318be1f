// The CUDA driver (libcuda.so.1), opened when it is first asked for: nothing of CUDA is needed to build this, and a machine
// without GPUs pays one failed dlopen. Declarations are our own; names, values and layouts are those of the CUDA Driver
// API documentation (docs.nvidia.com/cuda/cuda-driver-api). Everything here reaches the driver through `Driver`, so that
// tests can put a double in its place.
#pragma once

#include "engine/status.h"

#include <cstddef>

namespace mooncake::cuda {

using Result = int;
using Ordinal = int;
/** An address that GPUs use; with unified addressing (every 64-bit driver) host memory has one too. */
using Pointer = u64;
using Context = struct ContextTag*;
using Module = struct ModuleTag*;
using Function = struct FunctionTag*;
using Stream = struct StreamTag*;
using Event = struct EventTag*;
/** Memory of cuMemCreate, which has no address of its own. */
using Allocation = u64;

inline constexpr Result SUCCESS = 0;
inline constexpr Result OUT_OF_MEMORY = 2;
inline constexpr Result NOT_READY = 600;
inline constexpr Result PEER_ACCESS_ALREADY_ENABLED = 704;

inline constexpr unsigned EVENT_DISABLE_TIMING = 2;
inline constexpr unsigned EVENT_BLOCKING_SYNC = 1;
inline constexpr unsigned EVENT_INTERPROCESS = 4;
inline constexpr unsigned STREAM_NON_BLOCKING = 1;
inline constexpr unsigned IPC_LAZY_PEER_ACCESS = 1;
inline constexpr unsigned HOST_PORTABLE = 1;

inline constexpr int ATTRIBUTE_MULTIPROCESSORS = 16;
inline constexpr int ATTRIBUTE_DMA_BUF = 124;
inline constexpr int ATTRIBUTE_FABRIC = 128;
/** Contexts of all processes run at once (CUDA MPS) in place of taking turns. */
inline constexpr int ATTRIBUTE_MPS = 133;

/** What an allocation is handed over as: CUmemAllocationHandleType. */
inline constexpr int HANDLE_POSIX_FD = 1;
inline constexpr int HANDLE_FABRIC = 8;
/** CUmemRangeHandleType. */
inline constexpr int RANGE_DMA_BUF = 1;
inline constexpr int LOCATION_DEVICE = 1;
inline constexpr int ALLOCATION_PINNED = 1;
inline constexpr int ACCESS_READ_WRITE = 3;
inline constexpr unsigned COPY_IN_STREAM_ORDER = 1;

struct Uuid {
  u8 bytes[16];
};

/** Names memory of cuMemAlloc to other processes of the host. */
struct IpcHandle {
  u8 bytes[64];
};
/** Names an event with EVENT_INTERPROCESS to other processes of the host. */
struct IpcEventHandle {
  u8 bytes[64];
};
/** Names memory of cuMemCreate to other machines of an NVLink domain. */
struct FabricHandle {
  u8 bytes[64];
};

/** CUmemLocation; `id`: a device. */
struct Location {
  int type;
  int id;
};
/** CUmemAllocationProp. */
struct AllocationProperties {
  int type;
  int handleTypes;
  Location location;
  void* windows;
  u8 compression;
  u8 gpuDirectRdma;
  u16 usage;
  u8 reserved[4];
};
static_assert(sizeof(AllocationProperties) == 32);
/** CUmemAccessDesc. */
struct Access {
  Location location;
  int flags;
};
/** CUmemcpyAttributes. */
struct CopyAttributes {
  unsigned order;
  Location sourceHint;
  Location destinationHint;
  unsigned flags;
};
static_assert(sizeof(CopyAttributes) == 24);

// clang-format off
#define MOONCAKE_CUDA_CALLS(CALL)                                                                              \
  CALL(init, "cuInit", (unsigned flags))                                                                       \
  CALL(deviceCount, "cuDeviceGetCount", (int* count))                                                          \
  CALL(deviceGet, "cuDeviceGet", (int* device, Ordinal ordinal))                                               \
  CALL(deviceName, "cuDeviceGetName", (char* name, int length, int device))                                    \
  CALL(deviceUuid, "cuDeviceGetUuid_v2", (Uuid* uuid, int device))                                             \
  CALL(devicePciBusId, "cuDeviceGetPCIBusId", (char* address, int length, int device))                         \
  CALL(deviceMemory, "cuDeviceTotalMem_v2", (size_t* bytes, int device))                                       \
  CALL(contextRetain, "cuDevicePrimaryCtxRetain", (Context* context, int device))                              \
  CALL(contextRelease, "cuDevicePrimaryCtxRelease_v2", (int device))                                           \
  CALL(contextPush, "cuCtxPushCurrent_v2", (Context context))                                                  \
  CALL(contextPop, "cuCtxPopCurrent_v2", (Context* context))                                                   \
  CALL(canAccessPeer, "cuDeviceCanAccessPeer", (int* can, int device, int peer))                               \
  CALL(enablePeerAccess, "cuCtxEnablePeerAccess", (Context peer, unsigned flags))                              \
  CALL(streamPriorities, "cuCtxGetStreamPriorityRange", (int* least, int* greatest))                           \
  CALL(moduleLoad, "cuModuleLoadData", (Module* module, const void* image))                                    \
  CALL(moduleUnload, "cuModuleUnload", (Module module))                                                        \
  CALL(moduleFunction, "cuModuleGetFunction", (Function* function, Module module, const char* name))           \
  CALL(allocate, "cuMemAlloc_v2", (Pointer* pointer, size_t bytes))                                            \
  CALL(free, "cuMemFree_v2", (Pointer pointer))                                                                \
  CALL(addressRange, "cuMemGetAddressRange_v2", (Pointer* base, size_t* bytes, Pointer inside))                \
  CALL(hostAllocate, "cuMemHostAlloc", (void** address, size_t bytes, unsigned flags))                         \
  CALL(hostFree, "cuMemFreeHost", (void* address))                                                             \
  CALL(hostRegister, "cuMemHostRegister_v2", (void* address, size_t bytes, unsigned flags))                    \
  CALL(hostUnregister, "cuMemHostUnregister", (void* address))                                                 \
  CALL(ipcExport, "cuIpcGetMemHandle", (IpcHandle* handle, Pointer pointer))                                   \
  CALL(ipcOpen, "cuIpcOpenMemHandle_v2", (Pointer* pointer, IpcHandle handle, unsigned flags))                 \
  CALL(ipcClose, "cuIpcCloseMemHandle", (Pointer pointer))                                                     \
  CALL(deviceAttribute, "cuDeviceGetAttribute", (int* value, int attribute, int device))                       \
  CALL(ipcExportEvent, "cuIpcGetEventHandle", (IpcEventHandle* handle, Event event))                           \
  CALL(ipcOpenEvent, "cuIpcOpenEventHandle", (Event* event, IpcEventHandle handle))                            \
  CALL(granularity, "cuMemGetAllocationGranularity",                                                           \
       (size_t* bytes, const AllocationProperties* properties, int option))                                    \
  CALL(create, "cuMemCreate",                                                                                  \
       (Allocation* allocation, size_t bytes, const AllocationProperties* properties, u64 flags))              \
  CALL(retain, "cuMemRetainAllocationHandle", (Allocation* allocation, void* address))                         \
  CALL(drop, "cuMemRelease", (Allocation allocation))                                                          \
  CALL(properties, "cuMemGetAllocationPropertiesFromHandle",                                                   \
       (AllocationProperties* properties, Allocation allocation))                                              \
  CALL(exportAllocation, "cuMemExportToShareableHandle",                                                       \
       (void* handle, Allocation allocation, int type, u64 flags))                                             \
  CALL(importAllocation, "cuMemImportFromShareableHandle", (Allocation* allocation, void* handle, int type))   \
  CALL(reserve, "cuMemAddressReserve",                                                                         \
       (Pointer* pointer, size_t bytes, size_t alignment, Pointer at, u64 flags))                              \
  CALL(unreserve, "cuMemAddressFree", (Pointer pointer, size_t bytes))                                         \
  CALL(map, "cuMemMap", (Pointer pointer, size_t bytes, size_t offset, Allocation allocation, u64 flags))      \
  CALL(unmap, "cuMemUnmap", (Pointer pointer, size_t bytes))                                                   \
  CALL(setAccess, "cuMemSetAccess", (Pointer pointer, size_t bytes, const Access* access, size_t count))       \
  CALL(rangeHandle, "cuMemGetHandleForAddressRange",                                                           \
       (void* handle, Pointer pointer, size_t bytes, int type, u64 flags))                                     \
  CALL(streamCreate, "cuStreamCreateWithPriority", (Stream* stream, unsigned flags, int priority))             \
  CALL(streamDestroy, "cuStreamDestroy_v2", (Stream stream))                                                   \
  CALL(streamSynchronize, "cuStreamSynchronize", (Stream stream))                                              \
  CALL(eventCreate, "cuEventCreate", (Event* event, unsigned flags))                                           \
  CALL(eventDestroy, "cuEventDestroy_v2", (Event event))                                                       \
  CALL(eventRecord, "cuEventRecord", (Event event, Stream stream))                                             \
  CALL(eventQuery, "cuEventQuery", (Event event))                                                              \
  CALL(eventSynchronize, "cuEventSynchronize", (Event event))                                                  \
  CALL(launch, "cuLaunchKernel", (Function function, unsigned gridX, unsigned gridY, unsigned gridZ,           \
       unsigned blockX, unsigned blockY, unsigned blockZ, unsigned sharedBytes, Stream stream,                 \
       void** parameters, void** extra))                                                                       \
  CALL(copyAsync, "cuMemcpyAsync", (Pointer destination, Pointer source, size_t bytes, Stream stream))         \
  CALL(errorName, "cuGetErrorName", (Result result, const char** name))                                        \
  CALL(errorText, "cuGetErrorString", (Result result, const char** text))

/** Drivers since CUDA 12.8. As that one has it: 13.0's other form has a name of its own. */
#define MOONCAKE_CUDA_OPTIONAL_CALLS(CALL)                                                                     \
  CALL(copyBatch, "cuMemcpyBatchAsync", (Pointer* destinations, Pointer* sources, size_t* bytes, size_t count, \
       CopyAttributes* attributes, size_t* attributesFrom, size_t attributesCount, size_t* failed, Stream stream))
// clang-format on

struct Driver {
#define MOONCAKE_CUDA_FIELD(field, symbol, parameters) Result(*field) parameters = nullptr;
  MOONCAKE_CUDA_CALLS(MOONCAKE_CUDA_FIELD)
  /** Null where the driver has none. */
  MOONCAKE_CUDA_OPTIONAL_CALLS(MOONCAKE_CUDA_FIELD)
#undef MOONCAKE_CUDA_FIELD

  /** "cuMemAlloc 8 bytes: CUDA_ERROR_OUT_OF_MEMORY (out of memory)"; ok for SUCCESS. */
  Status status(const std::string& call, Result result) const;
};

/** Opens and initialises the driver, once. notSupported: there is none, it lacks a call, or it finds no GPU. */
Expected<const Driver*> driver();

}  // namespace mooncake::cuda
