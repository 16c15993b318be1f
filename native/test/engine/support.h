// What tests of the engine share: registered bytes, and batches that are waited for.
#pragma once

#include "engine/engine.h"

#include <future>
#include <random>

namespace mooncake::test {

inline Clock::time_point soon(int milliseconds = 20000) { return Clock::now() + std::chrono::milliseconds(milliseconds); }

/** Memory of the test's own, registered while it lives. */
struct Bytes {
  Bytes(Engine& where, u64 length, bool writable = true) : engine(where), data(length) {
    Segment segment;
    segment.base = data.data();
    segment.length = length;
    segment.writable = writable;
    auto added = engine.memory().add(std::move(segment), {});
    id = added.value;
  }
  ~Bytes() {
    std::promise<void> released;
    if (engine.memory().remove(id, [&] { released.set_value(); }).ok()) released.get_future().wait();
  }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  void fill(u64 seed) {
    std::mt19937_64 random(seed);
    for (u8& byte : data) byte = static_cast<u8>(random());
  }

  Engine& engine;
  std::vector<u8> data;
  u32 id = 0;
};

/** Submits and waits; a refusal comes back as the result's status. */
inline BatchResult move(Engine& engine, BatchSpec spec) {
  auto promise = std::make_shared<std::promise<BatchResult>>();
  auto future = promise->get_future();
  auto submitted = engine.submit(std::move(spec), [promise](u64, BatchResult result) { promise->set_value(std::move(result)); });
  if (!submitted.ok()) return {std::move(submitted.status)};
  return future.get();
}

}  // namespace mooncake::test
