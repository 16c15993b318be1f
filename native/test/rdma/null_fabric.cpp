// What devices do with what they are asked: the fast path of libibverbs, and the fabric's thread.
#include "test/rdma/null_verbs.h"

#include "transport/rdma/device.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace mooncake::test {

void ring(int fd) {
  const u64 one = 1;
  static_cast<void>(::write(fd, &one, sizeof one));
}

namespace {

using Steady = std::chrono::steady_clock;

// All of these with the fabric's lock held.

void complete(ibv_cq* queue, const ibv_wc& completion) {
  auto* const cq = static_cast<NullCq*>(queue);
  cq->completions.push_back(completion);
  if (cq->armed) ring(cq->channel->fd);
  cq->armed = false;
}

void completeSend(NullQp& qp, const NullRequest& request, ibv_wc_status status) {
  if (status == IBV_WC_SUCCESS && (request.flags & IBV_SEND_SIGNALED) == 0) return;
  ibv_wc completion{};
  completion.wr_id = request.id;
  completion.status = status;
  completion.qp_num = qp.qp_num;
  complete(qp.send_cq, completion);
}

}  // namespace

void toError(NullQp& qp) {
  qp.state = IBV_QPS_ERR;
  for (const NullRequest& request : qp.sends) completeSend(qp, request, IBV_WC_WR_FLUSH_ERR);
  qp.sends.clear();
  for (const auto& [id, place] : qp.receives) {
    ibv_wc completion{};
    completion.wr_id = id;
    completion.status = IBV_WC_WR_FLUSH_ERR;
    complete(qp.recv_cq, completion);
  }
  qp.receives.clear();
}

namespace {

NullMr* region(NullDevice& device, u32 key, u64 address, u64 length, unsigned access) {
  const auto found = device.regions.find(key);
  if (found == device.regions.end()) return nullptr;
  const u64 base = reinterpret_cast<u64>(found->second->addr);
  const bool within = address >= base && length <= found->second->length && address - base <= found->second->length - length;
  return within && (found->second->access & access) == access ? found->second : nullptr;
}

NullQp* peerOf(NullFabric& fabric, NullQp& qp) {
  const auto device = fabric.byGid.find(gidText(qp.remote.ah_attr.grh.dgid));
  if (device == fabric.byGid.end() || device->second->state != IBV_PORT_ACTIVE) return nullptr;
  const auto found = device->second->pairs.find(qp.remote.dest_qp_num);
  if (found == device->second->pairs.end()) return nullptr;
  NullQp* const other = found->second;
  const bool ready = other->state == IBV_QPS_RTR || other->state == IBV_QPS_RTS;
  return ready && other->remote.dest_qp_num == qp.qp_num ? other : nullptr;
}

ibv_wc_status receive(NullQp& other, const NullRequest& request, const ibv_sge& from) {
  if (other.receives.empty()) return IBV_WC_RNR_RETRY_EXC_ERR;
  const auto [id, place] = other.receives.front();
  if (place.length < from.length) return IBV_WC_REM_INV_REQ_ERR;
  other.receives.pop_front();
  std::memcpy(reinterpret_cast<void*>(place.addr), reinterpret_cast<const void*>(from.addr), from.length);
  ibv_wc completion{};
  completion.wr_id = id;
  completion.opcode = IBV_WC_RECV;
  completion.byte_len = from.length;
  static_cast<void>(request);
  complete(other.recv_cq, completion);
  return IBV_WC_SUCCESS;
}

ibv_wc_status execute(NullFabric& fabric, NullQp& qp, const NullRequest& request) {
  NullDevice& device = *qp.device;
  device.requests++;
  if (device.state != IBV_PORT_ACTIVE) return IBV_WC_LOC_QP_OP_ERR;
  if (device.failAfter >= 0) {
    device.failAfter -= static_cast<std::int64_t>(request.bytes);
    if (device.failAfter < 0) return device.failure;
  }
  NullQp* const other = peerOf(fabric, qp);
  if (other == nullptr) return IBV_WC_RETRY_EXC_ERR;
  if (other->remote.path_mtu != qp.remote.path_mtu) return IBV_WC_REM_INV_REQ_ERR;
  const u64 packet = std::min<u64>(request.bytes, mtuBytes(qp.remote.path_mtu));
  // All but the header of 24 bytes is payload where a message fills it.
  if (packet > std::min(device.carries, other->device->carries)) return IBV_WC_RETRY_EXC_ERR;
  ibv_sge place = request.places[0];
  const bool inlined = (request.flags & IBV_SEND_INLINE) != 0;
  if (inlined) place.addr = reinterpret_cast<u64>(request.inlined.data());
  const unsigned local = request.opcode == IBV_WR_RDMA_READ ? unsigned{IBV_ACCESS_LOCAL_WRITE} : 0u;
  NullMr* const here = inlined ? nullptr : region(device, place.lkey, place.addr, place.length, local);
  if (!inlined && here == nullptr) return IBV_WC_LOC_PROT_ERR;
  if (request.opcode == IBV_WR_SEND) return receive(*other, request, place);
  const bool write = request.opcode == IBV_WR_RDMA_WRITE;
  const unsigned remote = write ? IBV_ACCESS_REMOTE_WRITE : IBV_ACCESS_REMOTE_READ;
  NullMr* const there = region(*other->device, request.key, request.remote, place.length, remote);
  if (there == nullptr) {
    toError(*other);
    return IBV_WC_REM_ACCESS_ERR;
  }
  u8* const ours = here == nullptr ? reinterpret_cast<u8*>(place.addr) : here->at(place.addr);
  u8* const theirs = there->at(request.remote);
  std::memcpy(write ? theirs : ours, write ? ours : theirs, place.length);
  if (device.corrupts) (write ? theirs : ours)[place.length / 2] ^= 0x10;
  device.bytes += place.length;
  return IBV_WC_SUCCESS;
}

/** Does what is due of a queue pair; false where something is left. */
void advance(NullFabric& fabric, NullQp& qp, Steady::time_point now) {
  while (!qp.sends.empty() && qp.state == IBV_QPS_RTS && !qp.device->silent) {
    const NullRequest request = qp.sends.front();
    if (request.due > now) return;
    qp.sends.pop_front();
    const ibv_wc_status status = execute(fabric, qp, request);
    completeSend(qp, request, status);
    if (status != IBV_WC_SUCCESS) toError(qp);
  }
}

/** A lock of some nanoseconds, in place of the fabric's. */
class Brief {
 public:
  explicit Brief(std::atomic<bool>& busy) : busy_(busy) {
    // Who has it may have lost its processor.
    for (u32 tries = 1; busy_.exchange(true, std::memory_order_acquire); tries++) {
      if (tries % 64 == 0) std::this_thread::yield();
    }
  }
  ~Brief() { busy_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool>& busy_;
};

int pollHollow(NullCq& cq, int entries, ibv_wc* completions) {
  const Brief lock(cq.busy);
  int count = 0;
  for (; count < entries && cq.first != cq.end; cq.first++, count++) {
    completions[count].wr_id = cq.numbers[cq.first % cq.numbers.size()];
    completions[count].status = IBV_WC_SUCCESS;
  }
  return count;
}

int postHollow(NullQp& qp, const ibv_send_wr* first) {
  auto& cq = *static_cast<NullCq*>(qp.send_cq);
  const Brief lock(cq.busy);
  for (; first != nullptr; first = first->next) {
    if ((first->send_flags & IBV_SEND_SIGNALED) != 0) cq.numbers[cq.end++ % cq.numbers.size()] = first->wr_id;
  }
  if (cq.armed) ring(cq.channel->fd);
  cq.armed = false;
  return 0;
}

int pollCq(ibv_cq* queue, int entries, ibv_wc* completions) {
  if (ownerOf(queue->context).hollow) return pollHollow(*static_cast<NullCq*>(queue), entries, completions);
  const std::lock_guard lock(fabricOf(queue->context).mutex);
  auto* const cq = static_cast<NullCq*>(queue);
  int count = 0;
  while (count < entries && !cq->completions.empty()) {
    completions[count++] = cq->completions.front();
    cq->completions.pop_front();
  }
  return count;
}

int requestNotify(ibv_cq* queue, int) {
  const std::lock_guard lock(fabricOf(queue->context).mutex);
  const Brief brief(static_cast<NullCq*>(queue)->busy);
  static_cast<NullCq*>(queue)->armed = true;
  return 0;
}

int postSend(ibv_qp* pair, ibv_send_wr* first, ibv_send_wr** bad) {
  if (ownerOf(pair->context).hollow) return postHollow(*static_cast<NullQp*>(pair), first);
  NullFabric& fabric = fabricOf(pair->context);
  const std::lock_guard lock(fabric.mutex);
  NullQp& qp = *static_cast<NullQp*>(pair);
  const Steady::time_point now = Steady::now();
  for (ibv_send_wr* each = first; each != nullptr; each = each->next) {
    *bad = each;
    if (qp.state != IBV_QPS_RTS && qp.state != IBV_QPS_ERR) return EINVAL;
    if (qp.sends.size() >= qp.cap.max_send_wr) return ENOMEM;
    if (qp.device->refusesAfter >= 0 && qp.device->refusesAfter-- == 0) return ENOMEM;
    NullRequest request;
    request.id = each->wr_id;
    request.opcode = each->opcode;
    request.flags = each->send_flags;
    request.places.assign(each->sg_list, each->sg_list + each->num_sge);
    request.remote = each->wr.rdma.remote_addr;
    request.key = each->wr.rdma.rkey;
    for (const ibv_sge& place : request.places) request.bytes += place.length;
    if ((each->send_flags & IBV_SEND_INLINE) != 0) {
      if (request.bytes > qp.cap.max_inline_data) return EINVAL;
      const auto* const from = reinterpret_cast<const u8*>(each->sg_list->addr);
      request.inlined.assign(from, from + request.bytes);
    }
    if (qp.device->rate > 0) {
      qp.device->busyUntil = std::max(qp.device->busyUntil, now) +
                             std::chrono::nanoseconds(static_cast<long>(static_cast<double>(request.bytes) / qp.device->rate * 1e9));
      request.due = qp.device->busyUntil;
    }
    if (qp.state == IBV_QPS_ERR) completeSend(qp, request, IBV_WC_WR_FLUSH_ERR);
    else qp.sends.push_back(std::move(request));
  }
  advance(fabric, qp, now);
  if (!qp.sends.empty()) fabric.changed.notify_one();
  return 0;
}

int postReceive(ibv_qp* pair, ibv_recv_wr* first, ibv_recv_wr** bad) {
  NullFabric& fabric = fabricOf(pair->context);
  const std::lock_guard lock(fabric.mutex);
  NullQp& qp = *static_cast<NullQp*>(pair);
  for (ibv_recv_wr* each = first; each != nullptr; each = each->next) {
    *bad = each;
    if (qp.receives.size() >= qp.cap.max_recv_wr) return ENOMEM;
    if (qp.state == IBV_QPS_ERR) return EINVAL;
    qp.receives.emplace_back(each->wr_id, *each->sg_list);
  }
  return 0;
}

}  // namespace

NullFabric::NullFabric() : thread_([this] { serve(); }) {}

NullFabric::~NullFabric() {
  {
    const std::lock_guard lock(mutex);
    stopping_ = true;
    changed.notify_one();
  }
  thread_.join();
}

void NullFabric::serve() {
  std::unique_lock lock(mutex);
  while (!stopping_) {
    const Steady::time_point now = Steady::now();
    Steady::time_point next = now + std::chrono::milliseconds(50);
    for (const auto& [gid, device] : byGid) {
      for (const auto& [number, qp] : device->pairs) {
        advance(*this, *qp, now);
        if (!qp->sends.empty() && !device->silent) next = std::min(next, qp->sends.front().due);
      }
    }
    changed.wait_until(lock, next);
  }
}

ibv_context_ops nullOps() {
  ibv_context_ops ops{};
  ops.poll_cq = pollCq;
  ops.req_notify_cq = requestNotify;
  ops.post_send = postSend;
  ops.post_recv = postReceive;
  return ops;
}

}  // namespace mooncake::test
