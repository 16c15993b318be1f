// Scattered copies: many runs of bytes from anywhere to anywhere that this GPU can address: its own memory, a peer's over
// NVLink or PCIe, pinned host memory. Thread blocks take runs in turns; the host cuts long runs, so that all blocks have
// work (runs.h). kernels_ptx.h is made of this file by scripts/ptx.py: PTX that every driver since CUDA 11.8 compiles for
// every GPU since Ampere.

typedef unsigned int u32;
typedef unsigned long long u64;

/** One run; cuda::Run in runs.h. */
struct Run {
  u64 source;
  u64 destination;
  u64 length;
};

namespace {

struct Vector {
  u32 x, y, z, w;
};

// What is copied is not looked at again: it must not push the engine's data out of the caches.
__device__ __forceinline__ Vector load(const Vector* from) {
  Vector value;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from)
               : "memory");
  return value;
}

__device__ __forceinline__ void store(Vector* to, const Vector& value) {
  asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}

/** Loads on their way per thread: enough of them for the latency of NVLink and PCIe. */
constexpr u32 DEPTH = 8;

__device__ void copyVectors(const Vector* from, Vector* to, u64 count) {
  u64 at = threadIdx.x;
  for (; at + (DEPTH - 1) * blockDim.x < count; at += DEPTH * blockDim.x) {
    Vector values[DEPTH];
#pragma unroll
    for (u32 i = 0; i < DEPTH; i++) values[i] = load(from + at + i * blockDim.x);
#pragma unroll
    for (u32 i = 0; i < DEPTH; i++) store(to + at + i * blockDim.x, values[i]);
  }
  for (; at < count; at += blockDim.x) store(to + at, load(from + at));
}

template <class Unit>
__device__ void copyUnits(const Unit* from, Unit* to, u64 count) {
  for (u64 at = threadIdx.x; at < count; at += blockDim.x) to[at] = from[at];
}

/** By the largest unit that both addresses are multiples of, and what is left byte by byte. */
__device__ void copyRun(const Run& run) {
  const u64 crooked = run.source | run.destination;
  u64 done = 0;
  if (crooked % sizeof(Vector) == 0) {
    copyVectors(reinterpret_cast<const Vector*>(run.source), reinterpret_cast<Vector*>(run.destination),
                run.length / sizeof(Vector));
    done = run.length / sizeof(Vector) * sizeof(Vector);
  } else if (crooked % sizeof(u64) == 0) {
    copyUnits(reinterpret_cast<const u64*>(run.source), reinterpret_cast<u64*>(run.destination), run.length / sizeof(u64));
    done = run.length / sizeof(u64) * sizeof(u64);
  } else if (crooked % sizeof(u32) == 0) {
    copyUnits(reinterpret_cast<const u32*>(run.source), reinterpret_cast<u32*>(run.destination), run.length / sizeof(u32));
    done = run.length / sizeof(u32) * sizeof(u32);
  }
  copyUnits(reinterpret_cast<const unsigned char*>(run.source) + done,
            reinterpret_cast<unsigned char*>(run.destination) + done, run.length - done);
}

}  // namespace

/** `runs` may be pinned host memory: the next one is fetched while this one is copied. */
extern "C" __global__ void __launch_bounds__(512) mooncake_copy(const Run* runs, u32 count) {
  u32 at = blockIdx.x;
  if (at >= count) return;
  Run run = runs[at];
  for (;;) {
    const u32 following = at + gridDim.x;
    Run next{};
    if (following < count) next = runs[following];
    copyRun(run);
    if (following >= count) return;
    run = next;
    at = following;
  }
}
