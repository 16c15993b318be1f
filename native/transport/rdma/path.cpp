#include "transport/rdma/path.h"

#include "engine/peer.h"
#include "transport/rdma/trial.h"

#include <algorithm>

namespace mooncake::rdma {

namespace {

using namespace std::chrono_literals;

constexpr auto FIRST_PAUSE = 100ms;
constexpr auto LONGEST_PAUSE = 5000ms;
/** For the device to flush what it has; then the queue pairs are destroyed. */
constexpr auto DRAIN_LIMIT = 300ms;
/** For slices of a cancelled batch to end by themselves. */
constexpr auto CANCEL_LIMIT = 40ms;
/** Between two looks whether longer packets arrive. */
constexpr std::chrono::milliseconds LONGEST_RAISE = 10min;

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

std::string Path::detail() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::up && endpoint_ ? "MTU " + std::to_string(mtuBytes(endpoint_->mtu())) : "";
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

/** What an error completion says of this path. */
Status Path::broken(ibv_wc_status status) {
  if (state_ == State::connecting && step_ == Step::filling && device_->linked()) return unconnected();
  std::string text = settings_.localNic + " to " + settings_.remoteNic + ": " + statusText(status);
  // Mooncake's engines do not say their MTU, and are sent no probes.
  const bool lostOrMisread = status == IBV_WC_RETRY_EXC_ERR || status == IBV_WC_REM_INV_REQ_ERR;
  if (!settings_.own && endpoint_ && !carried_ && lostOrMisread) {
    text += "; its MTU here is " + std::to_string(mtuBytes(endpoint_->mtu())) + ": both sides must have the same (MC_MTU)";
  }
  return {Code::peer, std::move(text)};
}

void Path::takeDown(Settling& settling) {
  // Its queue pairs are destroyed here: nothing touches memory after that but our own sums.
  endpoint_.reset();
  if (trial_) trial_->stop();
  trial_.reset();
  attempt_++;
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
  if (mending_ && state_ == State::draining) {
    state_ = State::out;
    retryAt_ = Clock::now();
    return;
  }
  mending_ = false;
  guilty_.clear();
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
  stopAsking(settling);
  abandonWaiting(lost(), settling, nullptr);
  context_.wake();
}

/** Nobody answers any more. */
void Path::stopAsking(Settling& settling) {
  for (u32 i = 0; i < ops_.size(); i++) {
    Op& op = ops_[i];
    if (op.slice == nullptr || !op.asking) continue;
    op.asking = false;
    if (op.result == IBV_WC_SUCCESS) op.result = IBV_WC_WR_FLUSH_ERR;
    finish(i, settling);
  }
  unasked_.clear();
}

/** A request that its memory's owner, or our own NIC, refuses: no other path carries it, and it says nothing of this one. */
void Path::blame(const Op& op, Settling& settling) {
  const Batch& batch = *op.slice->batch;
  if (std::find(guilty_.begin(), guilty_.end(), batch.number()) == guilty_.end()) guilty_.push_back(batch.number());
  Status why(Code::segment, settings_.localNic + " to " + settings_.remoteNic + ": " + statusText(op.result) +
                                ": memory that is not registered any more, or not for this");
  abandonWaiting(why, settling, &batch);
  mend(std::move(why), settling);
}

void Path::mend(Status why, Settling& settling) {
  if (state_ != State::up) return;
  failure_ = std::move(why);
  mending_ = true;
  state_ = State::draining;
  since_ = Clock::now();
  endpoint_->flush();
  stopAsking(settling);
}

bool Path::goesOn(const Slice& slice) const {
  const u64 number = slice.batch->number();
  const bool given = std::any_of(cancelled_.begin(), cancelled_.end(), [&](const auto& each) { return each.first == number; });
  return mending_ && !closing_ && !given && std::find(guilty_.begin(), guilty_.end(), number) == guilty_.end();
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
        if (closing_ || now - since_ >= stepLimit() || !device_->linked()) {
          failure_ = unconnected();
          takeDown(settling);
        }
        break;
      case State::draining:
        // What was cancelled stays so: slices that wait for the new connection do not begin again. Cleared when it is up.
        if (drained() || now - since_ >= DRAIN_LIMIT) takeDown(settling);
        break;
      case State::out:
        if (closing_) takeDown(settling);
        else again = now >= retryAt_ && drained();
        break;
      case State::closed: break;
    }
  }
  settling.tell(events_);
  if (again) return connect();
  lookForMore(now);
}

/** Where its packets are shorter than our port's: some did not arrive, or a port had less when it was connected. */
void Path::lookForMore(Clock::time_point now) {
  if (trial_) {
    trial_->tick(now);
    if (trial_->gone()) trial_.reset();
    return;
  }
  if (state_ != State::up || closing_ || !settings_.own || now < raiseAt_) return;
  raiseAt_ = now + raisePause_;
  if (endpoint_->mtu() >= device_->mtu()) return;
  raisePause_ = std::min(2 * raisePause_, LONGEST_RAISE);
  trial_ = std::make_shared<Trial>(context_, device_, settings_, endpoint_->mtu(), [this](bool arrived) {
    if (arrived) longerPacketsArrive();
  });
  trial_->start(peer_);
}

void Path::longerPacketsArrive() {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    mtu_ = IBV_MTU_4096;
    mend({Code::peer, settings_.localNic + " to " + settings_.remoteNic + ": connected again, since longer packets arrive now"}, settling);
  }
  settling.tell(events_);
}

void Path::handle(std::span<const u8> bytes, Settling& settling) {
  Message message;
  if (Status status = parseMessage(bytes, message); !status.ok()) return breakUp(std::move(status), settling);
  if (message.header.type == MessageType::end) {
    return breakUp({Code::peer, settings_.remoteNic + " has ended the connection"}, settling);
  }
  if (message.header.type != MessageType::answer) return;
  if (state_ == State::connecting) {
    if (message.header.number == PROBE && step_ == Step::reaching) return fillPacket(settling);
    if (message.header.number != FULL_PROBE || step_ != Step::filling) return;
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
