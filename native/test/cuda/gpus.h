// What tests with simulated GPUs share: an engine on a simulated driver, which leaves nothing behind.
#pragma once

#include "test/check.h"
#include "test/cuda/double.h"
#include "test/engine/support.h"

namespace mooncake::test {

constexpr u64 KIB = 1 << 10;
constexpr u64 MIB = 1 << 20;

struct Gpus {
  explicit Gpus(int count = 2, double share = 0.5) : simulated(count) {
    EngineOptions options;
    options.gpuShare = share;
    options.cudaDriver = simulated.driver();
    engine = std::make_unique<Engine>(options);
  }
  ~Gpus() {
    engine.reset();
    CHECK(simulated.leaks() == 0);
  }

  u32 allocate(int gpu, u64 length) {
    const Expected<u32> id = engine->allocateDevice("cuda:" + std::to_string(gpu), length);
    REQUIRE(id.ok());
    return id.value;
  }
  /** The bytes of a GPU's segment, which the simulation has in host memory. */
  u8* bytes(u32 segment) { return reinterpret_cast<u8*>(engine->memory().hold(segment)->deviceAddress); }
  void remove(u32 segment) {
    std::promise<void> released;
    REQUIRE(engine->memory().remove(segment, [&] { released.set_value(); }).ok());
    released.get_future().wait();
  }
  BatchResult copy(std::vector<Record> records, bool verify = false) {
    return move(*engine, spec(std::move(records), verify));
  }
  static BatchSpec spec(std::vector<Record> records, bool verify = false) {
    BatchSpec made;
    made.records = std::move(records);
    made.deadline = soon();
    made.verify = verify;
    return made;
  }

  CudaDouble simulated;
  std::unique_ptr<Engine> engine;
};

}  // namespace mooncake::test
