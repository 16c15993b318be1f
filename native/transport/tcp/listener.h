// The port: accepts connections, and finds out by their first bytes whether a peer of ours, stock data or a stock handshake
// is at the other end.
#pragma once

#include "memory/segment.h"
#include "transport/tcp/clients.h"
#include "transport/tcp/handshake_server.h"
#include "transport/tcp/service.h"
#include "transport/tcp/stock.h"

#include <array>
#include <atomic>

namespace mooncake::tcp {

/** What the connections of a port serve. */
struct Served {
  MemoryTable& memory;
  u64 generation;
  AnswerHandshake handshake;
  std::shared_ptr<Clients> clients;
};

using Loops = std::vector<std::shared_ptr<Loop>>;

class Listener final : public Watched {
 public:
  Listener(const Loops& loops, std::shared_ptr<const Served> served, Fd fd);

  /** Begins to accept, on the first of the loops. From any thread. */
  static void start(const std::shared_ptr<Listener>& listener);
  /** Accepts no more; returns when that is so. From any thread. */
  void stop();

  void ready(u32 events) override;
  bool tick() override;

 private:
  /** One of the connections that there may be; null: there are as many already. */
  std::shared_ptr<void> takeSeat();

  const Loops loops_;
  const std::shared_ptr<const Served> served_;
  Fd fd_;
  u64 name_ = 0;
  size_t next_ = 0;
  const u32 seats_;
  const std::shared_ptr<std::atomic<u32>> taken_ = std::make_shared<std::atomic<u32>>(0);
  /** The process has no descriptors left: asked again at the next tick. */
  bool paused_ = false;
};

/** A connection of which nothing is known yet. */
class Newcomer final : public Service {
 public:
  Newcomer(Loop& loop, std::shared_ptr<const Served> served, Fd fd)
      : Service(loop, std::move(fd)), served_(std::move(served)) {}

  void begin(const u8*, size_t) override {}
  void ready(u32 events) override;
  bool tick() override;

 private:
  const std::shared_ptr<const Served> served_;
  std::array<u8, OPENING_BYTES> bytes_;
  size_t length_ = 0;
};

}  // namespace mooncake::tcp
