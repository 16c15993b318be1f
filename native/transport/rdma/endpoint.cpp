#include "transport/rdma/endpoint.h"

#include <cstdlib>

namespace mooncake::rdma {

namespace {

constexpr size_t MAX_PAIRS = 64;

std::string valueOf(const Shake& shake, const char* key) {
  const auto found = shake.find(key);
  return found == shake.end() ? "" : found->second;
}

Status bad(const char* key, const std::string& value) {
  return {Code::protocol, std::string("an RDMA handshake with a bad ") + key + ": \"" + value.substr(0, 200) + "\""};
}

/** Digits alone. */
bool readNumber(const std::string& text, u64 most, u64& out) {
  if (text.empty() || text.size() > 10 || text.find_first_not_of("0123456789") != std::string::npos) return false;
  out = std::strtoull(text.c_str(), nullptr, 10);
  return out <= most;
}

}  // namespace

Expected<Counterpart> readCounterpart(const Shake& shake) {
  Counterpart other;
  const std::string numbers = valueOf(shake, "qp_num");
  for (size_t at = 0; at <= numbers.size() && !numbers.empty();) {
    const size_t comma = std::min(numbers.find(',', at), numbers.size());
    u64 number = 0;
    if (!readNumber(numbers.substr(at, comma - at), 0xffffff, number)) return bad("qp_num", numbers);
    other.numbers.push_back(static_cast<u32>(number));
    at = comma + 1;
  }
  if (other.numbers.empty() || other.numbers.size() > MAX_PAIRS) return bad("qp_num", numbers);
  const std::string gid = valueOf(shake, "local_gid");
  if (!parseGid(gid, other.gid)) return bad("local_gid", gid);
  u64 number = 0;
  const std::string lid = valueOf(shake, "local_lid");
  if (!readNumber(lid, 0xffff, number)) return bad("local_lid", lid);
  other.lid = static_cast<u16>(number);
  const std::string mtu = valueOf(shake, "ts_mtu");
  if (!mtu.empty()) {
    if (!readNumber(mtu, IBV_MTU_4096, number) || number == 0) return bad("mtu", mtu);
    other.mtu = static_cast<ibv_mtu>(number);
  }
  return other;
}

Expected<std::shared_ptr<Endpoint>> Endpoint::create(std::shared_ptr<Device> device, u32 count, const QueuePairLimits& limits,
                                                     bool messages, std::shared_ptr<Poster> poster, ibv_mtu mtu) {
  std::shared_ptr<Endpoint> endpoint(new Endpoint(std::move(device)));
  endpoint->mtu_ = std::min(endpoint->device_->mtu(), mtu);
  endpoint->seat_ = endpoint->device_->completions().seat(std::move(poster));
  if (endpoint->seat_ == 0) return Status(Code::outOfMemory, endpoint->device_->name() + ": too many connections");
  for (u32 i = 0; i < count + (messages ? 1 : 0); i++) {
    auto pair = QueuePair::create(*endpoint->device_, i < count ? limits : MessageChannel::limits());
    if (!pair.ok()) return pair.status;
    endpoint->pairs_.push_back(std::move(pair.value));
  }
  if (messages) {
    auto channel = MessageChannel::create(*endpoint->device_, *endpoint->pairs_.back(), [seat = endpoint->seat_](u32 slot) {
      return u64{seat} << 32 | Work{Work::Kind::message, slot}.number();
    });
    if (!channel.ok()) return channel.status;
    endpoint->messages_ = std::move(channel.value);
  }
  return endpoint;
}

Endpoint::~Endpoint() {
  // The buffers of messages go when no queue pair uses them.
  pairs_.clear();
  messages_.reset();
  if (seat_ != 0) device_->completions().unseat(seat_);
}

void Endpoint::describe(Shake& shake) const {
  const Port& port = device_->port();
  std::string numbers;
  for (const auto& pair : pairs_) numbers += (numbers.empty() ? "" : ",") + std::to_string(pair->number());
  shake["qp_num"] = numbers;
  shake["local_gid"] = gidText(port.gid);
  shake["local_lid"] = std::to_string(port.lid);
  shake["ts_mtu"] = std::to_string(mtu_);
}

Status Endpoint::connect(const Counterpart& other) {
  if (other.numbers.size() != pairs_.size()) {
    return {Code::protocol, device_->name() + ": the peer has " + std::to_string(other.numbers.size()) + " queue pairs, not " +
                                std::to_string(pairs_.size()) + " (MC_NUM_QP_PER_EP)"};
  }
  if (other.mtu != 0) mtu_ = std::min(mtu_, other.mtu);
  Remote remote{other.gid, other.lid, 0, mtu_};
  for (size_t i = 0; i < pairs_.size(); i++) {
    remote.number = other.numbers[i];
    if (Status status = pairs_[i]->connect(remote); !status.ok()) return status;
  }
  return {};
}

void Endpoint::flush() {
  for (const auto& pair : pairs_) pair->flush();
}

}  // namespace mooncake::rdma
