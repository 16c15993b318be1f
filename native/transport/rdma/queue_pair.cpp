#include "transport/rdma/queue_pair.h"

#include <cerrno>

namespace mooncake::rdma {

namespace {

constexpr u8 HOP_LIMIT = 16;
constexpr u8 READS_UNDER_WAY = 16;
/** 0.64 ms. */
constexpr u8 MIN_RNR_TIMER = 12;
constexpr u8 RNR_RETRIES = 7;

}  // namespace

Expected<std::unique_ptr<QueuePair>> QueuePair::create(Device& device, const QueuePairLimits& limits) {
  std::unique_ptr<QueuePair> pair(new QueuePair(device, limits));
  ibv_qp_init_attr wanted{};
  wanted.send_cq = wanted.recv_cq = device.completions().get();
  wanted.qp_type = IBV_QPT_RC;
  wanted.cap = {limits.depth, limits.receives, 1, 1, limits.inlineBytes};
  pair->qp_ = device.verbs().createQp(device.pd(), &wanted);
  if (pair->qp_ == nullptr && limits.inlineBytes > 0) {
    wanted.cap = {limits.depth, limits.receives, 1, 1, 0};
    pair->qp_ = device.verbs().createQp(device.pd(), &wanted);
    pair->limits_.inlineBytes = 0;
  }
  if (pair->qp_ == nullptr) {
    return Status(Code::system, device.name() + ": " +
                                    systemError("ibv_create_qp with " + std::to_string(limits.depth) + " requests", errno).detail);
  }
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.port_num = device.port().number;
  attributes.qp_access_flags =
      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
  Status status = pair->modify("INIT", attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  if (!status.ok()) return status;
  return pair;
}

QueuePair::~QueuePair() {
  if (qp_ != nullptr) device_.verbs().destroyQp(qp_);
}

Status QueuePair::modify(const char* to, ibv_qp_attr& attributes, int mask) {
  const int error = device_.verbs().modifyQp(qp_, &attributes, mask);
  if (error == 0) return {};
  return {Code::system, device_.name() + ": " + systemError(std::string("queue pair to ") + to, error > 0 ? error : errno).detail};
}

Status QueuePair::connect(const Remote& remote) {
  const DeviceOptions& options = device_.options();
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RTR;
  attributes.path_mtu = remote.mtu;
  attributes.dest_qp_num = remote.number;
  attributes.max_dest_rd_atomic = READS_UNDER_WAY;
  attributes.min_rnr_timer = MIN_RNR_TIMER;
  ibv_ah_attr& path = attributes.ah_attr;
  path.grh.dgid = remote.gid;
  path.grh.sgid_index = static_cast<u8>(device_.port().gidIndex);
  path.grh.hop_limit = HOP_LIMIT;
  path.grh.traffic_class = static_cast<u8>(options.trafficClass);
  path.dlid = remote.lid;
  path.sl = static_cast<u8>(options.serviceLevel);
  path.is_global = 1;
  path.port_num = device_.port().number;
  Status status = modify("RTR", attributes,
                         IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                             IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
  if (!status.ok()) return {status.code, status.detail + " (peer " + gidText(remote.gid) + ")"};
  attributes = {};
  attributes.qp_state = IBV_QPS_RTS;
  attributes.timeout = static_cast<u8>(limits_.timeout);
  attributes.retry_cnt = static_cast<u8>(limits_.retries);
  attributes.rnr_retry = RNR_RETRIES;
  attributes.max_rd_atomic = READS_UNDER_WAY;
  return modify("RTS", attributes,
                IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

void QueuePair::flush() {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  static_cast<void>(modify("ERR", attributes, IBV_QP_STATE));
}

}  // namespace mooncake::rdma
