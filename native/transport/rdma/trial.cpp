#include "transport/rdma/trial.h"

#include "engine/peer.h"

namespace mooncake::rdma {

namespace {

/** For the handshake and the message, which is sent again for some seconds where it is lost. */
constexpr auto LIMIT = std::chrono::seconds(15);

}  // namespace

void Trial::start(Peer& peer) {
  since_ = Clock::now();
  auto endpoint = Endpoint::create(device_, 1, settings_.limits, true, shared_from_this());
  if (!endpoint.ok()) return end(false);
  endpoint_ = std::move(endpoint.value);
  Shake request = greeting(context_, peer, settings_);
  request["ts_link"] += TRIAL;
  endpoint_->describe(request);
  context_.shake(peer.name(), std::move(request), [self = shared_from_this()](Expected<Shake> answer) {
    self->device_->completions().post([self, answer = std::move(answer)] { self->shaken(answer); });
  });
}

void Trial::shaken(const Expected<Shake>& answer) {
  if (!over_ || !endpoint_) return;
  const Expected<Counterpart> other = readAnswer(settings_, answer);
  if (!other.ok() || !endpoint_->connect(other.value).ok()) return end(false);
  // The other port has no more.
  if (endpoint_->mtu() <= used_) return end(false);
  if (!sendFullProbe(*endpoint_->messages())) end(false);
}

void Trial::completed(std::span<const ibv_wc> completions) {
  for (const ibv_wc& completion : completions) {
    if (completion.status != IBV_WC_SUCCESS) return end(false);
    const Work work = Work::of(static_cast<u32>(completion.wr_id));
    Message message;
    const bool received = work.index < MessageChannel::SLOTS;
    const bool answered = received && parseMessage(endpoint_->messages()->received(work.index, completion.byte_len), message).ok() &&
                          message.header.type == MessageType::answer && message.header.number == FULL_PROBE;
    endpoint_->messages()->release(work.index);
    if (answered) end(true);
  }
}

void Trial::tick(Clock::time_point now) {
  if (!over_) return stop();
  if (now - since_ >= LIMIT) end(false);
}

/** The connection goes with the next tick: until then the peer may hear of its end. */
void Trial::end(bool arrived) {
  if (!over_) return;
  if (endpoint_) endpoint_->messages()->send({MessageType::end}, {});
  const auto over = std::exchange(over_, nullptr);
  over(arrived);
}

void Trial::stop() {
  over_ = nullptr;
  endpoint_.reset();
}

}  // namespace mooncake::rdma
