// A CUDA driver that simulates GPUs in host memory: the same calls (transport/cuda/driver.h), kernels run on a thread per
// stream. It checks what a driver would: memory that is not a GPU's, not pinned, or of another context, freed memory,
// events of nobody. Faults are planted by name.
#pragma once

#include "transport/cuda/driver.h"

#include <string>

namespace mooncake::test {

class CudaDouble {
 public:
  explicit CudaDouble(int gpus = 2);
  ~CudaDouble();
  CudaDouble(const CudaDouble&) = delete;
  CudaDouble& operator=(const CudaDouble&) = delete;

  const cuda::Driver* driver() const;

  /** The next calls of `symbol` ("cuLaunchKernel") fail with `result`; so many of them, then they work again. */
  void fail(const std::string& symbol, cuda::Result result, int times = 1);
  /** Work of all streams waits until `release`. */
  void hold();
  void release();
  /** GPUs do not reach each other's memory. */
  void separate();

  /** An allocation of "another process": only its handle is known here. Returns where its bytes are, and the handle. */
  u8* foreign(int gpu, u64 bytes, cuda::IpcHandle& handle);

  /** Memory of the current context's GPU that is the caller's: copies find the bytes of `base` at `at`. Until `forget`. False: no
      context is current. */
  bool adopt(cuda::Pointer base, u64 bytes, u8* at);
  void forget(cuda::Pointer base);

  /** An event of "another process" that is over; `setForeign` says that it was recorded, and whether that is over. */
  cuda::IpcEventHandle foreignEvent(size_t& number);
  void setForeign(size_t number, bool over);
  bool foreignIsOver(size_t number) const;
  /** The next run that is summed arrives with a bit turned. */
  void corruptNext();
  /** Calls that copied many pieces at once. */
  u64 batches() const;

  /** Of this process: allocations, opened handles, pinned ranges, contexts, events and streams that are still there. */
  size_t leaks() const;
  /** Kernels launched, and bytes that the driver copied itself. */
  u64 launches() const;
  u64 copied() const;
  u64 opened() const;
};

}  // namespace mooncake::test
