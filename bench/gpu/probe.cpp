// What the copy kernel reaches on one GPU, by blocks and threads, beside the driver's own copies.
#include "transport/cuda/driver.h"
#include "transport/cuda/kernels_ptx.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

using namespace mooncake;
using namespace mooncake::cuda;

namespace {
struct Run { Pointer source, destination; u64 length; };
const Driver* d;
void check(const char* what, Result r) { if (r != SUCCESS) { std::fprintf(stderr, "%s\n", d->status(what, r).detail.c_str()); std::exit(1); } }
double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
template <class F> double best(int n, F f) { double b = 1e9; for (int i = 0; i < n; i++) { double t = seconds(); f(); b = std::min(b, seconds() - t); } return b; }
}

int main() {
  auto found = driver();
  if (!found.ok()) { std::fprintf(stderr, "%s\n", found.status.detail.c_str()); return 1; }
  d = found.value;
  int version; d->driverVersion(&version);
  int dev; check("get", d->deviceGet(&dev, 0));
  char name[100]; d->deviceName(name, 100, dev);
  Context ctx; check("ctx", d->contextRetain(&ctx, dev)); check("push", d->contextPush(ctx));
  int sms; d->deviceAttribute(&sms, ATTRIBUTE_MULTIPROCESSORS, dev);
  Module m; check("module", d->moduleLoad(&m, KERNELS)); Function f; check("fn", d->moduleFunction(&f, m, "mooncake_copy"));
  Stream s; check("stream", d->streamCreate(&s, STREAM_NON_BLOCKING, 0));
  std::printf("%s driver %d sms %d\n", name, version, sms);
  const size_t total = 2ull << 30;
  Pointer a, b; check("a", d->allocate(&a, total)); check("b", d->allocate(&b, total));
  void* host; double t0 = seconds(); check("host", d->hostAllocate(&host, total, HOST_PORTABLE)); std::printf("hostAlloc 2 GiB %.3f s\n", seconds() - t0);
  std::memset(host, 1, total);
  void* mapped; t0 = seconds(); void* plain = std::aligned_alloc(1 << 21, total); std::memset(plain, 2, total); double t1 = seconds();
  check("register", d->hostRegister(plain, total, HOST_PORTABLE)); std::printf("register 2 GiB %.3f s (touch %.3f)\n", seconds() - t1, t1 - t0); mapped = plain;
  Run* runs; check("runs", d->hostAllocate(reinterpret_cast<void**>(&runs), 24 * 65536 * 4, HOST_PORTABLE));
  Pointer druns; check("druns", d->allocate(&druns, 24 * 65536 * 4));
  struct Side { const char* name; Pointer from, to; } sides[] = {
    {"d2d", a, b}, {"d2h", a, reinterpret_cast<Pointer>(host)}, {"h2d", reinterpret_cast<Pointer>(host), a},
    {"d2h registered", a, reinterpret_cast<Pointer>(mapped)}, {"h2d registered", reinterpret_cast<Pointer>(mapped), a}};
  for (auto& side : sides) {
    for (size_t bytes : {size_t(18) << 20, size_t(288) << 20, size_t(1536) << 20}) {
      double c = best(5, [&] { check("copy", d->copyAsync(side.to, side.from, bytes, s)); check("sync", d->streamSynchronize(s)); });
      std::printf("%s memcpy %zu MiB: %.1f GB/s\n", side.name, bytes >> 20, bytes / c / 1e9);
    }
    const size_t block = 65536;
    for (size_t bytes : {size_t(18) << 20, size_t(288) << 20, size_t(1536) << 20}) {
      const u32 n = bytes / block; std::vector<u32> p(total / block), q(total / block); std::iota(p.begin(), p.end(), 0); std::iota(q.begin(), q.end(), 0);
      std::mt19937 rng(1); std::shuffle(p.begin(), p.end(), rng); std::shuffle(q.begin(), q.end(), rng);
      double one = bytes > (size_t(300) << 20) ? 0 : best(3, [&] { for (u32 i = 0; i < n; i++) d->copyAsync(side.to + u64(q[i]) * block, side.from + u64(p[i]) * block, block, s); d->streamSynchronize(s); });
      if (one > 0) std::printf("  %s one call a block, %zu MiB: %.1f GB/s\n", side.name, bytes >> 20, bytes / one / 1e9);
      for (u32 cut : {65536u, 16384u}) {
        u32 count = 0;
        for (u32 i = 0; i < n; i++) for (u32 at = 0; at < block; at += cut) runs[count++] = {side.from + u64(p[i]) * block + at, side.to + u64(q[i]) * block + at, cut};
        for (unsigned per : {1u, 2u, 4u}) for (unsigned threads : {256u, 512u}) {
          unsigned grid = std::min<unsigned>(sms * per, count);
          double best2[2];
          for (int where = 0; where < 2; where++) {
            Pointer list = where ? druns : reinterpret_cast<Pointer>(runs);
            void* args[] = {&list, &count};
            best2[where] = best(7, [&] { if (where) d->copyAsync(druns, reinterpret_cast<Pointer>(runs), count * 24, s); check("launch", d->launch(f, grid, 1, 1, threads, 1, 1, 0, s, args, nullptr)); check("sync", d->streamSynchronize(s)); });
          }
          std::printf("  %s kernel %zu MiB cut %u grid %ux%u threads %u: runs in host %.1f GB/s, copied %.1f GB/s\n", side.name, bytes >> 20, cut, sms, per, threads, bytes / best2[0] / 1e9, bytes / best2[1] / 1e9);
        }
      }
      for (unsigned grid : {8u, 16u, 32u, 64u}) {
        u32 count = n; for (u32 i = 0; i < n; i++) runs[i] = {side.from + u64(p[i]) * block, side.to + u64(q[i]) * block, block};
        Pointer list = reinterpret_cast<Pointer>(runs); void* args[] = {&list, &count};
        double t = best(5, [&] { check("launch", d->launch(f, grid, 1, 1, 512, 1, 1, 0, s, args, nullptr)); check("sync", d->streamSynchronize(s)); });
        std::printf("  %s kernel %zu MiB grid %u: %.1f GB/s\n", side.name, bytes >> 20, grid, bytes / t / 1e9);
      }
    }
  }
  // verify scattered copy
  return 0;
}
