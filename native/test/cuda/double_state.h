// What the simulated driver's calls share (double.cpp, double_virtual.cpp): the simulated machine.
#pragma once

#include "test/cuda/double.h"
#include "transport/cuda/launcher.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
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
  /** Another process's, that this one was opened for. */
  EventTag* of = nullptr;
  /** How often it was recorded and which of these is over, where processes share it (library_shared.cpp). */
  u64* counts = nullptr;
  EventTag& itself() { return of != nullptr ? *of : *this; }
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

using namespace cuda;

struct Block {
  u64 bytes = 0;
  int gpu = 0;
  bool foreign = false;
  u32 opened = 0;
  /** Where its bytes are; null: at its address. */
  u8* at = nullptr;
  /** What is mapped there. */
  Allocation allocation = 0;
};
/** Of cuMemCreate. */
struct Made {
  std::vector<u8> bytes;
  int gpu = 0;
  u32 handles = 0;
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
  u64 batches = 0;
  u64 opened = 0;
  bool corrupting = false;
  std::vector<std::unique_ptr<EventTag>> foreignEvents;
  std::map<Allocation, Made> made;
  Allocation nextMade = 1;
  std::map<Pointer, u64> reserved;
};

/** Never freed by a destructor of the process: threads may wait in it. */
extern State* state;
/** The planted fault of a call. With the lock held. */
Result fault(const char* symbol);
/** The allocation around an address. With the lock held. */
Block* blockOf(Pointer at, Pointer* base = nullptr);
/** The calls of memory of cuMemCreate, for the table of all. */
void addVirtualCalls(Driver& driver);

}  // namespace mooncake::test

/** Holds the lock, and fails the call where that is planted. */
#define PLANTED(symbol)                                                \
  const std::lock_guard lock(state->mutex);                            \
  if (const Result planted = fault(symbol); planted != SUCCESS) return planted
