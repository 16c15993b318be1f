// A path's connection: the handshake, then messages that show that it carries, and how much a packet may hold.
#include "engine/peer.h"
#include "transport/rdma/path.h"

#include <algorithm>

namespace mooncake::rdma {

namespace {

using namespace std::chrono_literals;

/** The peer's answer, and that of the probe; whoever carries handshakes has a deadline of its own. */
constexpr auto HANDSHAKE_LIMIT = 6s;
constexpr auto PROBE_LIMIT = 2s;

std::string valueOf(const Shake& shake, const char* key) {
  const auto found = shake.find(key);
  return found == shake.end() ? "" : found->second;
}

}  // namespace

Shake greeting(const TransportContext& context, const Peer& peer, const PathSettings& settings) {
  Shake request{{"local_nic_path", settings.localNic}, {"peer_nic_path", settings.remoteNic}, {"ready_ack", "false"}};
  if (settings.own) {
    request["ts_generation"] = std::to_string(context.generation);
    request["ts_peer_generation"] = std::to_string(peer.generation());
    request["ts_link"] = std::to_string(settings.number);
  }
  return request;
}

Expected<Counterpart> readAnswer(const PathSettings& settings, const Expected<Shake>& answer) {
  if (!answer.ok()) return Status(Code::peer, settings.remoteNic + ": " + answer.status.detail);
  Shake said = answer.value;
  // Older engines leave it to the descriptor.
  if (valueOf(said, "local_gid").empty()) said["local_gid"] = settings.remoteGid;
  if (const std::string why = valueOf(said, "reply_msg"); !why.empty()) {
    return Status(Code::peer, settings.remoteNic + " refused: " + why.substr(0, 500));
  }
  if (valueOf(said, "local_nic_path") != settings.remoteNic || valueOf(said, "peer_nic_path") != settings.localNic) {
    return Status(Code::protocol, settings.remoteNic + " answered as \"" + valueOf(said, "local_nic_path").substr(0, 200) + "\" to \"" +
                                      valueOf(said, "peer_nic_path").substr(0, 200) + "\"");
  }
  Expected<Counterpart> other = readCounterpart(said);
  if (!other.ok()) return Status(Code::protocol, settings.remoteNic + ": " + other.status.detail);
  return other;
}

bool sendFullProbe(MessageChannel& messages) {
  const std::vector<SumRecord> records(MessageChannel::MAX_RECORDS);
  return messages.send({MessageType::request, Code::ok, static_cast<u16>(records.size()), FULL_PROBE},
                       {reinterpret_cast<const u8*>(records.data()), records.size() * sizeof(SumRecord)});
}

void Path::connect() {
  const Clock::time_point now = Clock::now();
  Shake request = greeting(context_, peer_, settings_);
  if (!device_->linked()) return retry({Code::peer, device_->name() + ": its port has no link"});
  auto endpoint = Endpoint::create(device_, settings_.pairs, settings_.limits, settings_.own, shared_from_this(), mtu_);
  if (!endpoint.ok()) return retry(std::move(endpoint.status));
  endpoint.value->describe(request);
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
  step_ = Step::shaking;
  const u32 attempt = ++attempt_;
  context_.shake(peer_.name(), std::move(request), [self = shared_from_this(), attempt](Expected<Shake> answer) {
    self->device_->completions().post([self, attempt, answer = std::move(answer)] { self->shaken(attempt, answer); });
  });
}

void Path::shaken(u32 attempt, const Expected<Shake>& answer) {
  if (attempt != attempt_ || step_ != Step::shaking || closing_) return;
  step_ = Step::reaching;
  const Expected<Counterpart> other = readAnswer(settings_, answer);
  if (!other.ok()) return retry(other.status);
  if (Status status = endpoint_->connect(other.value); !status.ok()) return retry(std::move(status));
  if (answer.value.contains("ready_ack")) {
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
  mending_ = carried_ = false;
  guilty_.clear();
  const Clock::time_point now = Clock::now();
  for (PairUse& use : use_) use.progress = now;
  raisePause_ = settings_.raise;
  raiseAt_ = now + raisePause_;
  state_ = State::up;
}

/** A message that is as long as what a packet carries: a network that takes less of it loses such packets without a word. */
void Path::fillPacket(Settling& settling) {
  step_ = Step::filling;
  since_ = Clock::now();
  if (!sendFullProbe(*endpoint_->messages())) breakUp({Code::system, "no probe can be sent"}, settling);
}

std::chrono::milliseconds Path::stepLimit() const {
  switch (step_) {
    case Step::shaking: return HANDSHAKE_LIMIT;
    case Step::reaching: return PROBE_LIMIT;
    case Step::filling: break;
  }
  // Packets of that size take what slices take, and their loss lets the next attempt use smaller ones.
  return std::max<std::chrono::milliseconds>(PROBE_LIMIT, settings_.stall);
}

/** Why this attempt comes to nothing. Where short packets arrive, and long ones do not, the next has shorter ones. */
Status Path::unconnected() {
  const std::string between = settings_.localNic + " to " + settings_.remoteNic + ": ";
  if (!device_->linked()) return {Code::peer, between + "its port has no link"};
  if (step_ == Step::shaking) return {Code::peer, between + "no answer to the handshake"};
  if (step_ == Step::reaching) return {Code::peer, between + "connected, but nothing arrives"};
  const ibv_mtu mtu = endpoint_->mtu();
  if (mtu > IBV_MTU_256) mtu_ = static_cast<ibv_mtu>(mtu - 1);
  return {Code::peer, between + "short packets arrive, those of its MTU of " + std::to_string(mtuBytes(mtu)) +
                          " do not: the network in between carries less (MC_MTU)"};
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

}  // namespace mooncake::rdma
