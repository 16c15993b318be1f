// What engines of ours say to each other beside the data, over a queue pair of its own (Mooncake's engines have none of it): the
// sum of ranges, which is how one-sided moves are verified, and that a connection ends. Numbers are little-endian, as in memory.
//
//   request   u8 1 · u8 0 · u16 records · u32 number · records: u32 segment · u32 0 · u64 offset · u64 length
//   answer    u8 2 · u8 code (engine/status.h) · u16 0 · u32 number · u64 sum (CRC-64 over the ranges, one after another)
//   end       u8 3 · 7 bytes 0
//
// A request of no records asks whether the connection works. RC delivers each message once and in order; whoever asks has at most
// SLOTS requests unanswered, so that there is always room for what arrives.
#pragma once

#include "transport/rdma/queue_pair.h"

#include <span>

namespace mooncake::rdma {

enum class MessageType : u8 { request = 1, answer = 2, end = 3 };

struct MessageHeader {
  MessageType type{};
  Code code = Code::ok;
  u16 records = 0;
  u32 number = 0;
};
static_assert(sizeof(MessageHeader) == 8);

struct SumRecord {
  u32 segment = 0;
  u32 zero = 0;
  u64 offset = 0;
  u64 length = 0;
};
static_assert(sizeof(SumRecord) == 24);

struct Message {
  MessageHeader header;
  /** Of a request. */
  std::span<const SumRecord> records;
  /** Of an answer. */
  u64 sum = 0;
};

/** Fails with protocol. */
Status parseMessage(std::span<const u8> bytes, Message& out);

/** The buffers of one side, and the queue pair that they go through. */
class MessageChannel {
 public:
  static constexpr u32 SLOTS = 32;
  static constexpr u32 BYTES = 4096;
  static constexpr u32 MAX_RECORDS = (BYTES - sizeof(MessageHeader)) / sizeof(SumRecord);

  static QueuePairLimits limits();

  /** Registers the buffers, and posts the receives. `tag` of a slot: the number of its work request. */
  static Expected<std::unique_ptr<MessageChannel>> create(Device& device, QueuePair& pair, std::function<u64(u32 slot)> tag);
  ~MessageChannel();
  MessageChannel(const MessageChannel&) = delete;
  MessageChannel& operator=(const MessageChannel&) = delete;

  /** Sends a message, if a slot is free. From any thread. */
  bool send(const MessageHeader& header, std::span<const u8> body);
  /** The message that arrived in a slot; valid until `release`. */
  std::span<const u8> received(u32 slot, u32 bytes) const { return {at(slot), std::min(bytes, BYTES)}; }
  /** A slot is free: after a send completed, or a received message was read. */
  void release(u32 slot);

 private:
  MessageChannel(Device& device, QueuePair& pair, std::function<u64(u32)> tag)
      : device_(device), pair_(pair), tag_(std::move(tag)), bytes_(size_t{2} * SLOTS * BYTES) {}
  /** Slots 0 to SLOTS - 1 receive, those above send. */
  u8* at(u32 slot) const { return const_cast<u8*>(bytes_.data()) + size_t{slot} * BYTES; }
  Status receive(u32 slot);

  Device& device_;
  QueuePair& pair_;
  const std::function<u64(u32)> tag_;
  std::vector<u8> bytes_;
  ibv_mr* region_ = nullptr;
  std::mutex mutex_;
  std::vector<u32> free_;
};

}  // namespace mooncake::rdma
