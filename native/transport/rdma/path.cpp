#include "transport/rdma/path.h"

#include "engine/peer.h"

#include <algorithm>

namespace mooncake::rdma {

namespace {

using namespace std::chrono_literals;

constexpr auto FIRST_PAUSE = 100ms;
constexpr auto LONGEST_PAUSE = 5000ms;
/** The peer's answer, and that of the probe; whoever carries handshakes has a deadline of its own. */
constexpr auto HANDSHAKE_LIMIT = 6s;
constexpr auto PROBE_LIMIT = 2s;
/** For the device to flush what it has; then the queue pairs are destroyed. */
constexpr auto DRAIN_LIMIT = 300ms;
/** For slices of a cancelled batch to end by themselves. */
constexpr auto CANCEL_LIMIT = 40ms;

constexpr u32 PROBE = 0xffffffff;

std::string valueOf(const Shake& shake, const char* key) {
  const auto found = shake.find(key);
  return found == shake.end() ? "" : found->second;
}

}  // namespace

Path::Path(TransportContext& context, std::shared_ptr<Device> device, std::shared_ptr<Regions> regions, Peer& peer,
           LinkEvents& events, PathSettings settings)
    : context_(context),
      device_(std::move(device)),
      regions_(std::move(regions)),
      peer_(peer),
      events_(events),
      settings_(std::move(settings)) {}

void Path::start() {
  device_->completions().post([self = shared_from_this()] {
    self->device_->completions().watch(self);
    self->connect();
  });
}

LinkState Path::state() const {
  const State state = state_.load(std::memory_order_acquire);
  if (state == State::up) return LinkState::up;
  return state == State::closed || lost_ ? LinkState::down : LinkState::connecting;
}

Status Path::failure() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::up ? Status() : failure_;
}

/** What slices are told: another path may carry them, whatever it was that broke this one. */
Status Path::lost() const { return {closing_ ? Code::closed : Code::peer, failure_.detail}; }

void Path::close() {
  std::unique_lock lock(mutex_);
  if (!closing_) {
    closing_ = true;
    // The peer drops its part at once where it hears of it.
    if (state_ == State::up && endpoint_->messages() != nullptr) endpoint_->messages()->send({MessageType::end}, {});
    lock.unlock();
    device_->completions().post([self = shared_from_this()] { self->tick(Clock::now()); });
    lock.lock();
  }
  closedCondition_.wait(lock, [this] { return state_ == State::closed; });
}

void Path::connect() {
  const Clock::time_point now = Clock::now();
  Shake request{{"local_nic_path", settings_.localNic}, {"peer_nic_path", settings_.remoteNic}, {"ready_ack", "false"}};
  if (!device_->linked()) return retry({Code::peer, device_->name() + ": its port has no link"});
  auto endpoint = Endpoint::create(device_, settings_.pairs, settings_.limits, settings_.own, shared_from_this());
  if (!endpoint.ok()) return retry(std::move(endpoint.status));
  endpoint.value->describe(request);
  if (settings_.own) {
    request["ts_generation"] = std::to_string(context_.generation);
    request["ts_peer_generation"] = std::to_string(peer_.generation());
    request["ts_link"] = std::to_string(settings_.number);
  }
  {
    const std::lock_guard lock(mutex_);
    state_ = State::connecting;
    since_ = now;
    endpoint_ = std::move(endpoint.value);
    const u32 depth = settings_.limits.depth;
    ops_.assign(size_t{settings_.pairs} * depth, {});
    freeOps_.clear();
    for (u32 i = static_cast<u32>(ops_.size()); i > 0; i--) freeOps_.push_back(i - 1);
    use_.assign(settings_.pairs, {});
    chains_.assign(settings_.pairs, Chain(depth));
    underWay_ = unanswered_ = 0;
    answered_ = now;
  }
  shaking_ = true;
  const u32 attempt = ++attempt_;
  context_.shake(peer_.name(), std::move(request), [self = shared_from_this(), attempt](Expected<Shake> answer) {
    self->device_->completions().post([self, attempt, answer = std::move(answer)] { self->shaken(attempt, answer); });
  });
}

void Path::shaken(u32 attempt, const Expected<Shake>& answer) {
  if (attempt != attempt_ || !shaking_ || closing_) return;
  shaking_ = false;
  if (!answer.ok()) return retry({Code::peer, settings_.remoteNic + ": " + answer.status.detail});
  Shake said = answer.value;
  // Older engines leave it to the descriptor.
  if (valueOf(said, "local_gid").empty()) said["local_gid"] = settings_.remoteGid;
  if (const std::string why = valueOf(said, "reply_msg"); !why.empty()) {
    return retry({Code::peer, settings_.remoteNic + " refused: " + why.substr(0, 500)});
  }
  if (valueOf(said, "local_nic_path") != settings_.remoteNic || valueOf(said, "peer_nic_path") != settings_.localNic) {
    return retry({Code::protocol, settings_.remoteNic + " answered as \"" + valueOf(said, "local_nic_path").substr(0, 200) + "\" to \"" +
                                      valueOf(said, "peer_nic_path").substr(0, 200) + "\""});
  }
  const Expected<Counterpart> other = readCounterpart(said);
  if (!other.ok()) return retry({Code::protocol, settings_.remoteNic + ": " + other.status.detail});
  if (Status status = endpoint_->connect(other.value); !status.ok()) return retry(std::move(status));
  if (said.contains("ready_ack")) {
    Shake ready{{"local_nic_path", settings_.localNic}, {"peer_nic_path", settings_.remoteNic}, {"ready_ack", "true"}};
    endpoint_->describe(ready);
    // Its answer says nothing.
    context_.shake(peer_.name(), std::move(ready), [](const Expected<Shake>&) {});
  }
  since_ = Clock::now();
  if (!settings_.own) {
    {
      const std::lock_guard lock(mutex_);
      setUp();
    }
    return context_.wake();
  }
  // What the handshake says of a path came another way; a message shows that this one carries.
  if (!endpoint_->messages()->send({MessageType::request, Code::ok, 0, PROBE}, {})) retry({Code::system, "no probe can be sent"});
}

void Path::setUp() {
  failure_ = {};
  lost_ = false;
  for (PairUse& use : use_) use.progress = Clock::now();
  state_ = State::up;
}

/** The attempt has failed: nothing of it is under way. */
void Path::retry(Status why) {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    failure_ = std::move(why);
    takeDown(settling);
  }
  settling.tell(events_);
}

void Path::takeDown(Settling& settling) {
  // Its queue pairs are destroyed here: nothing touches memory after that but our own sums.
  endpoint_.reset();
  shaking_ = false;
  for (u32 i = 0; i < ops_.size(); i++) {
    Op& op = ops_[i];
    if (op.slice == nullptr) continue;
    if (op.moving) {
      if (op.result == IBV_WC_SUCCESS) op.result = IBV_WC_WR_FLUSH_ERR;
      device_->completions().release(op.requests);
      op.moving = false;
    }
    finish(i, settling);
  }
  unasked_.clear();
  const bool nothing = drained();
  if (closing_ && nothing) {
    abandonWaiting({Code::closed, "the link is closed"}, settling, nullptr);
    failure_ = {Code::closed, "the link is closed"};
    state_ = State::closed;
    device_->completions().post([self = shared_from_this()] { self->device_->completions().unwatch(self.get()); });
    closedCondition_.notify_all();
    return;
  }
  state_ = State::out;
  lost_ = true;
  const auto pause = FIRST_PAUSE * (u64{1} << std::min(failures_++, 6u));
  retryAt_ = Clock::now() + std::min<Clock::duration>(pause, LONGEST_PAUSE);
  abandonWaiting(lost(), settling, nullptr);
  context_.wake();
}

void Path::breakUp(Status why, Settling& settling) {
  if (state_ != State::up && state_ != State::connecting) return;
  failure_ = std::move(why);
  lost_ = true;
  state_ = State::draining;
  since_ = Clock::now();
  if (endpoint_) endpoint_->flush();
  // Nobody answers any more.
  for (u32 i = 0; i < ops_.size(); i++) {
    Op& op = ops_[i];
    if (op.slice == nullptr || !op.asking) continue;
    op.asking = false;
    if (op.result == IBV_WC_SUCCESS) op.result = IBV_WC_WR_FLUSH_ERR;
    finish(i, settling);
  }
  unasked_.clear();
  abandonWaiting(lost(), settling, nullptr);
  context_.wake();
}

bool Path::drained() const { return underWay_ == 0; }

void Path::tick(Clock::time_point now) {
  Settling settling;
  bool again = false;
  {
    const std::lock_guard lock(mutex_);
    switch (state_.load()) {
      case State::up: {
        if (closing_) {
          breakUp({Code::closed, "the link is closed"}, settling);
          break;
        }
        if (!device_->linked()) {
          breakUp({Code::peer, device_->name() + ": its port has lost its link"}, settling);
          break;
        }
        for (const PairUse& use : use_) {
          if (use.requests == 0 || now - use.progress < settings_.stall || state_ != State::up) continue;
          breakUp({Code::peer, settings_.localNic + " to " + settings_.remoteNic + ": nothing completed for " +
                                   std::to_string(settings_.stall.count()) + " ms"},
                  settling);
        }
        if (unanswered_ > 0 && now - answered_ >= settings_.stall && state_ == State::up) {
          breakUp({Code::peer, settings_.localNic + " to " + settings_.remoteNic + ": no sum of what was moved for " +
                                   std::to_string(settings_.stall.count()) + " ms"},
                  settling);
        }
        std::erase_if(cancelled_, [&](const auto& each) {
          return std::none_of(ops_.begin(), ops_.end(), [&](const Op& op) { return op.slice != nullptr && op.slice->batch->number() == each.first; });
        });
        for (const auto& each : cancelled_) {
          if (now - each.second >= CANCEL_LIMIT) breakUp({Code::aborted, "a batch was cancelled"}, settling);
        }
        // Another path has left room in the completion queue.
        startWaiting(settling);
        break;
      }
      case State::connecting:
        if (closing_ || now - since_ >= (shaking_ ? HANDSHAKE_LIMIT : PROBE_LIMIT) || !device_->linked()) {
          const char* const why = !device_->linked() ? "its port has no link" : shaking_ ? "no answer to the handshake" : "connected, but nothing arrives";
          failure_ = {Code::peer, settings_.localNic + " to " + settings_.remoteNic + ": " + why};
          takeDown(settling);
        }
        break;
      case State::draining:
        if (drained() || now - since_ >= DRAIN_LIMIT) {
          cancelled_.clear();
          takeDown(settling);
        }
        break;
      case State::out:
        if (closing_) takeDown(settling);
        else again = now >= retryAt_ && drained();
        break;
      case State::closed: break;
    }
  }
  settling.tell(events_);
  if (again) connect();
}

void Path::handle(std::span<const u8> bytes, Settling& settling) {
  Message message;
  if (Status status = parseMessage(bytes, message); !status.ok()) return breakUp(std::move(status), settling);
  if (message.header.type == MessageType::end) {
    return breakUp({Code::peer, settings_.remoteNic + " has ended the connection"}, settling);
  }
  if (message.header.type != MessageType::answer) return;
  if (message.header.number == PROBE) {
    if (state_ != State::connecting) return;
    setUp();
    return context_.wake();
  }
  if (message.header.number >= ops_.size() || !ops_[message.header.number].asking) return;
  Op& op = ops_[message.header.number];
  op.asking = false;
  op.code = message.header.code;
  op.remoteSum = message.sum;
  unanswered_--;
  answered_ = device_->completions().now();
  finish(message.header.number, settling);
  while (!unasked_.empty() && unanswered_ < MessageChannel::SLOTS / 2) {
    const u32 next = unasked_.front();
    unasked_.pop_front();
    ask(next);
  }
}

}  // namespace mooncake::rdma
