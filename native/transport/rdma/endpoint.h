// One connection to a NIC of a peer: queue pairs for data, and to engines of ours one more for messages. What a queue pair is
// asked is named by 32 bits: what kind of request it is, and an index that whoever asks knows.
#pragma once

#include "transport/rdma/messages.h"

namespace mooncake::rdma {

/** What the low 32 bits of a work request's number say. */
struct Work {
  enum class Kind : u8 { data, last, message };
  Kind kind = Kind::data;
  u32 index = 0;

  u32 number() const { return static_cast<u32>(kind) << 28 | index; }
  static Work of(u32 number) { return {static_cast<Kind>(number >> 28), number & 0xfffffff}; }
};

/** What a handshake says of one side: "local_…" of itself. Texts as in Mooncake's JSON; keys of ours begin with "ts_". */
using Shake = std::map<std::string, std::string>;

/** Between engines of ours a connection has a number ("ts_link"); one that is tried beside it (trial.h) has this behind it. */
constexpr const char* TRIAL = "+";

/** The other side, as its handshake says it. */
struct Counterpart {
  std::vector<u32> numbers;
  ibv_gid gid{};
  u16 lid = 0;
  /** Of engines of ours; 0: a Mooncake engine. */
  ibv_mtu mtu{};
};

/** Fails with protocol, naming the field. */
Expected<Counterpart> readCounterpart(const Shake& shake);

class Endpoint {
 public:
  /** `count` queue pairs for data; `poster` hears of their requests. Packets are of the port's MTU, of `mtu` at most. On the
      device's thread. */
  static Expected<std::shared_ptr<Endpoint>> create(std::shared_ptr<Device> device, u32 count, const QueuePairLimits& limits,
                                                    bool messages, std::shared_ptr<Poster> poster, ibv_mtu mtu = IBV_MTU_4096);
  /** On the device's thread. When it has returned, nothing of it touches memory or calls the poster. */
  ~Endpoint();
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  /** What the other side has to know: "local_gid", "local_lid", "qp_num", "ts_mtu". */
  void describe(Shake& shake) const;
  /** Fails with protocol where the other side has another number of queue pairs. */
  Status connect(const Counterpart& other);

  /** All queue pairs to ERR. From any thread. */
  void flush();

  /** Of the connection: the smaller of both sides', as far as the other said it. */
  ibv_mtu mtu() const { return mtu_; }
  size_t pairs() const { return messages_ ? pairs_.size() - 1 : pairs_.size(); }
  QueuePair& pair(size_t index) { return *pairs_[index]; }
  /** Null to Mooncake's engines. */
  MessageChannel* messages() { return messages_.get(); }
  Device& device() { return *device_; }
  u64 number(Work work) const { return u64{seat_} << 32 | work.number(); }

 private:
  explicit Endpoint(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  const std::shared_ptr<Device> device_;
  u32 seat_ = 0;
  ibv_mtu mtu_ = IBV_MTU_4096;
  std::vector<std::unique_ptr<QueuePair>> pairs_;
  std::unique_ptr<MessageChannel> messages_;
};

}  // namespace mooncake::rdma
