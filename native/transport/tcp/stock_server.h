// A stock peer (a Mooncake transfer engine) that reads and writes our registered memory over one connection: serial requests
// of data version 1 or 2 (stock.h). All of it on the loop's thread.
#pragma once

#include "memory/segment.h"
#include "transport/tcp/input.h"
#include "transport/tcp/output.h"
#include "transport/tcp/service.h"
#include "transport/tcp/stock.h"

namespace mooncake::tcp {

class StockServer final : public Service {
 public:
  StockServer(Loop& loop, MemoryTable& memory, Fd fd) : Service(loop, std::move(fd)), memory_(memory) {}

  void begin(const u8* opening, size_t length) override;
  void ready(u32 events) override;
  bool tick() override;

 private:
  enum class Phase : u8 {
    request,
    reading,   // the peer reads: our data goes out
    writing,   // the peer writes: its data comes in
    refusing,  // a rejection goes out, then the connection ends
  };

  void work();
  /** False: nothing more can be done now, or the connection has ended. */
  bool step();
  bool takeRequest();
  void respond(StockStatus status, Phase next);
  bool flush();

  MemoryTable& memory_;
  Phase phase_ = Phase::request;
  StockRequest request_;
  Input input_;
  Output output_;
  Target target_;
  SegmentRef held_;
  u64 progress_ = 0;
};

}  // namespace mooncake::tcp
