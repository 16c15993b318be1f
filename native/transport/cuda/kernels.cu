// Scattered copies: many runs of bytes from anywhere to anywhere that this GPU can address: its own memory, a peer's over
// NVLink or PCIe, pinned host memory. Thread blocks (or warps) take runs in turns; the host cuts long runs, so that all have
// work (launcher.h). kernels_ptx.h is made of this file by scripts/ptx.py: PTX that every driver since CUDA 11.8 compiles for
// every GPU since Ampere.

typedef unsigned int u32;
typedef unsigned long long u64;

/** One run; cuda::Run in launcher.h. */
struct Run {
  u64 source;
  u64 destination;
  u64 length;
};

/** `count` runs, one stride apart; cuda::Rows in launcher.h. */
struct Rows {
  u64 source;
  u64 destination;
  u64 length;
  u64 count;
  u64 sourceStride;
  u64 destinationStride;
};

namespace {

struct alignas(16) Vector {
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

// ---- Sums

// CRC-64 (native/checksum/crc64.h): a message is a polynomial over GF(2), its first bit the highest, and has the sum
// M * x^64 mod P. A warp takes a run 512 bytes at a time, a thread 16 bytes of each row. So a thread's share of M is Horner's
// scheme with the constant x^4096, by tables in shared memory, of its two words apart; in the end each is moved to its
// place by the power of x that the thread's place in the row is. Where a run is not a multiple of rows they begin before it:
// zeroes in front of a message do not change its sum.

constexpr u64 POLYNOMIAL = 0x42F0E1EBA9EA3693ull;
constexpr u32 WARP = 32;
constexpr u32 SUM_DEPTH = 4;

__host__ __device__ constexpr u64 timesX(u64 v) { return (v << 1) ^ ((v >> 63) != 0 ? POLYNOMIAL : 0); }

__host__ __device__ constexpr u64 times(u64 a, u64 b) {
  u64 product = 0;
#pragma unroll 1
  for (int i = 63; i >= 0; i--) product = timesX(product) ^ (((b >> i) & 1) != 0 ? a : 0);
  return product;
}

__host__ __device__ constexpr u64 xPower(u64 n) {
  u64 power = 1;
  for (u64 square = 2; n != 0; n >>= 1, square = times(square, square)) {
    if ((n & 1) != 0) power = times(power, square);
  }
  return power;
}

struct Powers {
  /** x^(4096 + i). */
  u64 fold[64];
  /** Where thread i's words of the last row belong, with the sum's own x^64. */
  u64 high[WARP];
  u64 low[WARP];

  __host__ __device__ constexpr Powers() : fold(), high(), low() {
    u64 power = xPower(8 * WARP * sizeof(Vector));
    for (u32 i = 0; i < 64; i++, power = timesX(power)) fold[i] = power;
    power = xPower(64);
    const u64 word = power;
    for (u32 i = WARP; i-- > 0;) {
      low[i] = power;
      power = times(power, word);
      high[i] = power;
      power = times(power, word);
    }
  }
};
__constant__ constexpr Powers POWERS{};

/** `table[k][b]`: b * x^(8k + 4096). */
using Table = u64[8][256];

__device__ void fill(Table& table) {
#pragma unroll 1
  for (u32 i = threadIdx.x; i < 8 * 256; i += blockDim.x) {
    u64 value = 0;
#pragma unroll
    for (u32 bit = 0; bit < 8; bit++) value ^= (i >> bit & 1) != 0 ? POWERS.fold[i / 256 * 8 + bit] : 0;
    table[i / 256][i % 256] = value;
  }
  __syncthreads();
}

__device__ __forceinline__ u64 moved(const Table& table, u64 v) {
  u64 sum = 0;
#pragma unroll
  for (u32 k = 0; k < 8; k++) sum ^= table[k][v >> (8 * k) & 255];
  return sum;
}

__device__ __forceinline__ u64 bigEndian(u32 first, u32 second) {
  return static_cast<u64>(__byte_perm(first, 0, 0x0123)) << 32 | __byte_perm(second, 0, 0x0123);
}

/** What is in memory now: not what this multiprocessor may still have of it. */
__device__ __forceinline__ Vector loadAgain(const Vector* from) {
  Vector value;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from)
               : "memory");
  return value;
}

/** 16 bytes at an address that is a multiple of `Unit`'s size. */
template <class Unit, bool AGAIN>
struct Access {
  static __device__ __forceinline__ Vector read(u64 address) {
    Vector value;
    const volatile Unit* const from = reinterpret_cast<const volatile Unit*>(address);
    Unit* const parts = reinterpret_cast<Unit*>(&value);
#pragma unroll
    for (u32 i = 0; i < sizeof(Vector) / sizeof(Unit); i++) parts[i] = from[i];
    return value;
  }
  static __device__ __forceinline__ void write(u64 address, const Vector& value) {
    Unit* const to = reinterpret_cast<Unit*>(address);
    const Unit* const parts = reinterpret_cast<const Unit*>(&value);
#pragma unroll
    for (u32 i = 0; i < sizeof(Vector) / sizeof(Unit); i++) to[i] = parts[i];
  }
};
template <bool AGAIN>
struct Access<Vector, AGAIN> {
  static __device__ __forceinline__ Vector read(u64 address) {
    const Vector* const from = reinterpret_cast<const Vector*>(address);
    return AGAIN ? loadAgain(from) : load(from);
  }
  static __device__ __forceinline__ void write(u64 address, const Vector& value) { store(reinterpret_cast<Vector*>(address), value); }
};

/** The sum of `length` bytes at `from`, by a whole warp; copied to `to` too, unless they are read again. All threads have it. */
template <class Unit, bool AGAIN>
__device__ u64 summed(const Table& table, u64 from, u64 to, u64 length) {
  const u32 lane = threadIdx.x % WARP;
  const u64 vectors = length / sizeof(Vector);
  const u32 missing = static_cast<u32>((SUM_DEPTH * WARP - vectors % (SUM_DEPTH * WARP)) % (SUM_DEPTH * WARP));
  u64 high = 0;
  u64 low = 0;
  for (long long at = static_cast<long long>(lane) - missing; at < static_cast<long long>(vectors); at += SUM_DEPTH * WARP) {
    Vector values[SUM_DEPTH];
#pragma unroll
    for (u32 i = 0; i < SUM_DEPTH; i++) {
      values[i] = Vector{};
      if (at + i * WARP >= 0) values[i] = Access<Unit, AGAIN>::read(from + (at + i * WARP) * sizeof(Vector));
    }
#pragma unroll
    for (u32 i = 0; i < SUM_DEPTH; i++) {
      if (!AGAIN && at + i * WARP >= 0) Access<Unit, AGAIN>::write(to + (at + i * WARP) * sizeof(Vector), values[i]);
      high = moved(table, high) ^ bigEndian(values[i].x, values[i].y);
      low = moved(table, low) ^ bigEndian(values[i].z, values[i].w);
    }
  }
  u64 sum = times(high, POWERS.high[lane]) ^ times(low, POWERS.low[lane]);
#pragma unroll
  for (u32 i = WARP / 2; i > 0; i /= 2) sum ^= __shfl_xor_sync(0xffffffffu, sum, i);
  // The last bytes, one a thread.
  const u32 rest = static_cast<u32>(length % sizeof(Vector));
  u32 byte = 0;
  if (lane < rest) {
    const u64 place = vectors * sizeof(Vector) + lane;
    byte = *reinterpret_cast<const volatile unsigned char*>(from + place);
    if (!AGAIN) *reinterpret_cast<unsigned char*>(to + place) = static_cast<unsigned char>(byte);
  }
#pragma unroll 1
  for (u32 i = 0; i < rest; i++) {
    sum ^= static_cast<u64>(__shfl_sync(0xffffffffu, byte, i)) << 56;
#pragma unroll
    for (u32 bit = 0; bit < 8; bit++) sum = timesX(sum);
  }
  return sum;
}

template <bool AGAIN>
__device__ u64 summedRun(const Table& table, u64 from, u64 to, u64 length) {
  const u64 crooked = AGAIN ? from : from | to;
  if (crooked % sizeof(Vector) == 0) return summed<Vector, AGAIN>(table, from, to, length);
  return summed<unsigned char, AGAIN>(table, from, to, length);
}

// ---- Rows

/** Vectors, or whatever else divides addresses, lengths and strides, of all rows in one sequence: a thread takes every 32nd. */
template <class Unit>
__device__ void copyRows(const Rows& rows) {
  const u32 each = static_cast<u32>(rows.length / sizeof(Unit));
  const u32 count = each * static_cast<u32>(rows.count);
  constexpr u32 AHEAD = 4;
  for (u32 at = threadIdx.x % WARP; at < count; at += AHEAD * WARP) {
    Unit values[AHEAD];
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) {
      const u32 mine = at + i * WARP;
      if (mine < count) values[i] = reinterpret_cast<const Unit*>(rows.source + mine / each * rows.sourceStride)[mine % each];
    }
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) {
      const u32 mine = at + i * WARP;
      if (mine < count) reinterpret_cast<Unit*>(rows.destination + mine / each * rows.destinationStride)[mine % each] = values[i];
    }
  }
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

/**
 * The same by warps, with two sums of each run: of what was read, in `sums`, and `count` further on of what the destination
 * has once it was written. Every other warp looks at what it wrote one run later, so that at any time about as many warps
 * write as read again: host memory is reached by a link that has both directions at once.
 */
extern "C" __global__ void __launch_bounds__(512) mooncake_sum(const Run* runs, u32 count, u64* sums) {
  __shared__ Table table;
  fill(table);
  const u32 stride = blockDim.x / WARP * gridDim.x;
  const u32 lag = threadIdx.x / WARP % 2 * stride;
  for (u32 at = threadIdx.x / WARP * gridDim.x + blockIdx.x; at < count + lag; at += stride) {
    if (at < count) {
      const Run run = runs[at];
      const u64 sent = summedRun<false>(table, run.source, run.destination, run.length);
      __threadfence_system();
      __syncwarp();
      if (threadIdx.x % WARP == 0) sums[at] = sent;
    }
    if (at < lag || at - lag >= count) continue;
    const u32 written = at - lag;
    const u64 found = summedRun<true>(table, runs[written].destination, 0, runs[written].length);
    if (threadIdx.x % WARP == 0) sums[count + written] = found;
  }
}

/** Rows, one list entry a warp. */
extern "C" __global__ void __launch_bounds__(512) mooncake_rows(const Rows* list, u32 count) {
  const u32 warps = blockDim.x / WARP;
  for (u32 at = threadIdx.x / WARP * gridDim.x + blockIdx.x; at < count; at += warps * gridDim.x) {
    const Rows rows = list[at];
    const u64 crooked = rows.source | rows.destination | rows.length | rows.sourceStride | rows.destinationStride;
    if (crooked % sizeof(uint4) == 0) {
      copyRows<uint4>(rows);
    } else {
      copyRows<unsigned char>(rows);
    }
  }
}
