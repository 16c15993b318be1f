#include "transport/rdma/messages.h"

#include <cerrno>
#include <cstring>

namespace mooncake::rdma {

Status parseMessage(std::span<const u8> bytes, Message& out) {
  if (bytes.size() < sizeof(MessageHeader)) return {Code::protocol, "an RDMA message of " + std::to_string(bytes.size()) + " bytes"};
  std::memcpy(&out.header, bytes.data(), sizeof out.header);
  const std::span<const u8> body = bytes.subspan(sizeof out.header);
  switch (out.header.type) {
    case MessageType::request:
      if (body.size() != out.header.records * sizeof(SumRecord)) break;
      // Buffers are aligned, and records follow 8 bytes.
      out.records = {reinterpret_cast<const SumRecord*>(body.data()), out.header.records};
      return {};
    case MessageType::answer:
      if (body.size() != sizeof out.sum || out.header.code > Code::system) break;
      std::memcpy(&out.sum, body.data(), sizeof out.sum);
      return {};
    case MessageType::end: return {};
  }
  return {Code::protocol, "an RDMA message of type " + std::to_string(static_cast<int>(out.header.type)) + " with " +
                              std::to_string(bytes.size()) + " bytes"};
}

QueuePairLimits MessageChannel::limits() {
  QueuePairLimits limits;
  limits.depth = SLOTS;
  limits.receives = SLOTS;
  limits.inlineBytes = 0;
  return limits;
}

Expected<std::unique_ptr<MessageChannel>> MessageChannel::create(Device& device, QueuePair& pair, std::function<u64(u32)> tag) {
  std::unique_ptr<MessageChannel> channel(new MessageChannel(device, pair, std::move(tag)));
  channel->region_ = device.verbs().regMr(device.pd(), channel->bytes_.data(), channel->bytes_.size(), IBV_ACCESS_LOCAL_WRITE);
  if (channel->region_ == nullptr) return systemError(device.name() + ": registering buffers for messages", errno);
  for (u32 slot = 0; slot < SLOTS; slot++) {
    channel->free_.push_back(SLOTS + slot);
    if (Status status = channel->receive(slot); !status.ok()) return status;
  }
  return channel;
}

MessageChannel::~MessageChannel() {
  if (region_ != nullptr) device_.verbs().deregMr(region_);
}

Status MessageChannel::receive(u32 slot) {
  ibv_sge place{reinterpret_cast<u64>(at(slot)), BYTES, region_->lkey};
  ibv_recv_wr request{tag_(slot), nullptr, &place, 1};
  ibv_recv_wr* bad = nullptr;
  const int error = pair_.postReceive(&request, &bad);
  return error == 0 ? Status() : systemError(device_.name() + ": ibv_post_recv", error);
}

bool MessageChannel::send(const MessageHeader& header, std::span<const u8> body) {
  const std::lock_guard lock(mutex_);
  if (free_.empty() || body.size() > BYTES - sizeof header) return false;
  const u32 slot = free_.back();
  std::memcpy(at(slot), &header, sizeof header);
  if (!body.empty()) std::memcpy(at(slot) + sizeof header, body.data(), body.size());
  ibv_sge place{reinterpret_cast<u64>(at(slot)), static_cast<u32>(sizeof header + body.size()), region_->lkey};
  ibv_send_wr request{};
  request.wr_id = tag_(slot);
  request.sg_list = &place;
  request.num_sge = 1;
  request.opcode = IBV_WR_SEND;
  request.send_flags = IBV_SEND_SIGNALED;
  ibv_send_wr* bad = nullptr;
  if (pair_.post(&request, &bad) != 0) return false;
  free_.pop_back();
  return true;
}

void MessageChannel::release(u32 slot) {
  if (slot < SLOTS) {
    // On failure the connection breaks, as its other requests show.
    static_cast<void>(receive(slot));
    return;
  }
  const std::lock_guard lock(mutex_);
  free_.push_back(slot);
}

}  // namespace mooncake::rdma
