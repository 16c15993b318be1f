// One handshake of a stock peer: a frame in, its answer out, then our half is closed and the peer closes the rest. All within
// LIMIT_MS. On the loop's thread, but the answer may come from anywhere.
#pragma once

#include "transport/tcp/service.h"
#include "transport/tcp/stock.h"

namespace mooncake::tcp {

using AnswerHandshake = std::function<void(u8 type, std::string json, std::function<void(std::string)> reply)>;

class HandshakeServer final : public Service, public std::enable_shared_from_this<HandshakeServer> {
 public:
  HandshakeServer(Loop& loop, const AnswerHandshake& handler, Fd fd) : Service(loop, std::move(fd)), handler_(handler) {}

  void begin(const u8* opening, size_t length) override;
  void ready(u32 events) override;
  bool tick() override;

 private:
  enum class Phase : u8 { request, waiting, reply, ending };

  void receive();
  void ask();
  void send();

  static constexpr u64 LIMIT_MS = 5000;
  /** Of one call, so that a peer that does not stop to send keeps nobody waiting: two of the longest handshakes. */
  static constexpr int MAX_TURNS = 128;

  const AnswerHandshake handler_;
  Phase phase_ = Phase::request;
  std::vector<u8> received_;
  Handshake handshake_;
  std::string reply_;
  size_t sent_ = 0;
};

}  // namespace mooncake::tcp
