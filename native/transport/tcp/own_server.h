// A peer of ours that reads and writes our registered memory over one connection (frames.h). Requests are served in the
// order in which they come, reads streaming out while writes stream in. All of it on the loop's thread.
#pragma once

#include "transport/tcp/clients.h"
#include "transport/tcp/input.h"
#include "transport/tcp/loop.h"
#include "transport/tcp/output.h"
#include "transport/tcp/service.h"

namespace mooncake::tcp {

class OwnServer final : public Service, public std::enable_shared_from_this<OwnServer> {
 public:
  OwnServer(Loop& loop, MemoryTable& memory, u64 generation, std::shared_ptr<Clients> clients, Fd fd)
      : Service(loop, std::move(fd)), memory_(memory), generation_(generation), clients_(std::move(clients)) {}
  ~OwnServer() override { clients_->leave(client_, connection_); }

  void begin(const u8* opening, size_t length) override;
  void ready(u32 events) override;
  bool tick() override;

 private:
  enum class Phase : u8 { hello, frames, data, end };

  void receive();
  /** Takes what is in the staging area as far as it goes. False: the connection is to be closed. */
  bool consume();
  bool takeHello();
  bool takeFrame(const Frame& frame);
  /** Ends another connection, and serves nothing more of this one before that is so. */
  void endOther(const ServedClient& other);
  void read(const Frame& frame);
  void write(const Frame& frame);
  void endWrite(const Frame& end);
  /** Holds the segment of each record and visits its bytes. */
  template <class Visit>
  Code reach(bool writing, std::vector<SegmentRef>& holds, Visit&& visit);
  void answer(const Frame& frame);
  void flush();
  bool full() const { return waiting_ || output_.size() >= MAX_ANSWERS; }

  /** Answers that wait to be sent, before we stop to read requests. */
  static constexpr size_t MAX_ANSWERS = 256;

  MemoryTable& memory_;
  const u64 generation_;
  const std::shared_ptr<Clients> clients_;
  /** Who the client is. */
  ClientName client_;
  u16 connection_ = 0;
  /** For another loop to end a connection. */
  bool waiting_ = false;
  Phase phase_ = Phase::hello;
  Input input_;
  Output output_;
  std::vector<WireRecord> records_;

  /** The write whose data arrives. */
  Frame writing_;
  Code writeCode_ = Code::ok;
  Target target_;
  std::vector<SegmentRef> holds_;

  u64 heard_ = 0;
  u64 said_ = 0;
};

}  // namespace mooncake::tcp
