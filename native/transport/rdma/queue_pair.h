// A reliable connection: one queue pair of a device through its states, RESET - INIT - RTR - RTS, and to ERR when it is given up,
// which flushes what it has. Constants are those of Mooncake's engines, so that both sides of a connection agree.
#pragma once

#include "transport/rdma/device.h"

#include <atomic>

namespace mooncake::rdma {

/** The other end. */
struct Remote {
  ibv_gid gid{};
  u16 lid = 0;
  u32 number = 0;
  /** The smaller of both sides' MTU. */
  ibv_mtu mtu = IBV_MTU_1024;
};

struct QueuePairLimits {
  /** Work requests that it has under way at most. */
  u32 depth = 256;
  u32 receives = 0;
  u32 inlineBytes = 64;
  /** Of the device, before it reports a failure: each takes 4.096 us * 2^timeout. 7 is for ever on some devices. */
  u32 retries = 6;
  u32 timeout = 14;
};

class QueuePair {
 public:
  /** Made and in state INIT. */
  static Expected<std::unique_ptr<QueuePair>> create(Device& device, const QueuePairLimits& limits);
  /** When it returns, the device touches no memory for it any more. */
  ~QueuePair();
  QueuePair(const QueuePair&) = delete;
  QueuePair& operator=(const QueuePair&) = delete;

  u32 number() const { return qp_->qp_num; }
  const QueuePairLimits& limits() const { return limits_; }

  /** To RTR and RTS. */
  Status connect(const Remote& remote);

  /** To ERR: what it has completes as flushed. Idempotent. */
  void flush();

  /** The requests that were not taken begin at `bad`. */
  int post(ibv_send_wr* first, ibv_send_wr** bad) { return qp_->context->ops.post_send(qp_, first, bad); }
  int postReceive(ibv_recv_wr* first, ibv_recv_wr** bad) { return qp_->context->ops.post_recv(qp_, first, bad); }

 private:
  QueuePair(Device& device, const QueuePairLimits& limits) : device_(device), limits_(limits) {}
  Status modify(const char* to, ibv_qp_attr& attributes, int mask);

  Device& device_;
  QueuePairLimits limits_;
  ibv_qp* qp_ = nullptr;
};

}  // namespace mooncake::rdma
