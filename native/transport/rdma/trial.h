// Whether packets that are longer than a path's arrive by now: ports get other settings, networks are mended. A connection beside the
// path's, between the same NICs, that carries one message as long as what both ports take, and goes. On the device's thread.
#pragma once

#include "transport/rdma/path.h"

namespace mooncake::rdma {

class Trial final : public Poster, public std::enable_shared_from_this<Trial> {
 public:
  /** `used`: what the path's packets carry. `over` hears once whether longer ones arrive, unless it is stopped before. */
  Trial(TransportContext& context, std::shared_ptr<Device> device, const PathSettings& settings, ibv_mtu used,
        std::function<void(bool arrived)> over)
      : context_(context), device_(std::move(device)), settings_(settings), used_(used), over_(std::move(over)) {}

  void start(Peer& peer);
  void tick(Clock::time_point now);
  /** Nothing of it is left. */
  bool gone() const { return !endpoint_; }
  void stop();

  void completed(std::span<const ibv_wc> completions) override;

 private:
  void shaken(const Expected<Shake>& answer);
  void end(bool arrived);

  TransportContext& context_;
  const std::shared_ptr<Device> device_;
  const PathSettings settings_;
  const ibv_mtu used_;
  /** Empty once it was told. */
  std::function<void(bool)> over_;
  std::shared_ptr<Endpoint> endpoint_;
  Clock::time_point since_{};
};

}  // namespace mooncake::rdma
