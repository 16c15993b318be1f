#include "test/rdma/null_verbs.h"

#include "transport/rdma/device.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace mooncake::test {

namespace {

using Steady = std::chrono::steady_clock;

struct NullContext : ibv_context {
  NullDevice* owner = nullptr;
  NullFabric* fabric = nullptr;
};

NullDevice& ownerOf(ibv_context* context) { return *static_cast<NullContext*>(context)->owner; }
NullFabric& fabricOf(ibv_context* context) { return *static_cast<NullContext*>(context)->fabric; }

void ring(int fd) {
  const u64 one = 1;
  static_cast<void>(::write(fd, &one, sizeof one));
}

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
  if (!inlined && region(device, place.lkey, place.addr, place.length, local) == nullptr) return IBV_WC_LOC_PROT_ERR;
  if (request.opcode == IBV_WR_SEND) return receive(*other, request, place);
  const bool write = request.opcode == IBV_WR_RDMA_WRITE;
  const unsigned remote = write ? IBV_ACCESS_REMOTE_WRITE : IBV_ACCESS_REMOTE_READ;
  if (region(*other->device, request.key, request.remote, place.length, remote) == nullptr) {
    toError(*other);
    return IBV_WC_REM_ACCESS_ERR;
  }
  u8* const ours = reinterpret_cast<u8*>(place.addr);
  u8* const theirs = reinterpret_cast<u8*>(request.remote);
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

NullVerbs::NullVerbs(std::shared_ptr<NullFabric> fabric, u32 devices) : fabric_(std::move(fabric)) {
  const std::lock_guard lock(fabric_->mutex);
  for (u32 i = 0; i < devices; i++) {
    auto device = std::make_unique<NullDevice>();
    device->name = "null" + std::to_string(i);
    device->gid.raw[10] = device->gid.raw[11] = 0xff;
    device->gid.raw[12] = 10;
    device->gid.raw[14] = static_cast<u8>(fabric_->nextNumber >> 8);
    device->gid.raw[15] = static_cast<u8>(fabric_->nextNumber++);
    fabric_->byGid[gidText(device->gid)] = device.get();
    devices_.push_back(std::move(device));
  }
}

NullVerbs::~NullVerbs() {
  const std::lock_guard lock(fabric_->mutex);
  for (const auto& device : devices_) fabric_->byGid.erase(gidText(device->gid));
}

void NullVerbs::set(u32 index, const std::function<void(NullDevice&)>& change) {
  const std::lock_guard lock(fabric_->mutex);
  change(*devices_[index]);
  fabric_->changed.notify_one();
}

void NullVerbs::link(u32 index, bool up) {
  set(index, [up](NullDevice& device) {
    device.state = up ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
    ibv_async_event event{};
    event.element.port_num = 1;
    event.event_type = up ? IBV_EVENT_PORT_ACTIVE : IBV_EVENT_PORT_ERR;
    device.events.push_back(event);
    for (ibv_context* context : device.open) ring(context->async_fd);
  });
}

bool NullVerbs::idle() {
  const std::lock_guard lock(fabric_->mutex);
  return std::all_of(devices_.begin(), devices_.end(), [](const auto& device) {
    return device->contexts == 0 && device->regions.empty() && device->pairs.empty();
  });
}

ibv_device** NullVerbs::getDeviceList(int* count) {
  *count = static_cast<int>(devices_.size());
  auto** const list = new ibv_device*[devices_.size() + 1];
  for (size_t i = 0; i < devices_.size(); i++) list[i] = reinterpret_cast<ibv_device*>(devices_[i].get());
  list[devices_.size()] = nullptr;
  return list;
}
void NullVerbs::freeDeviceList(ibv_device** list) { delete[] list; }
const char* NullVerbs::deviceName(ibv_device* device) { return reinterpret_cast<NullDevice*>(device)->name.c_str(); }

ibv_context* NullVerbs::openDevice(ibv_device* device) {
  auto* const context = new NullContext{};
  context->device = device;
  context->owner = reinterpret_cast<NullDevice*>(device);
  context->fabric = fabric_.get();
  context->ops.poll_cq = pollCq;
  context->ops.req_notify_cq = requestNotify;
  context->ops.post_send = postSend;
  context->ops.post_recv = postReceive;
  context->async_fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE);
  const std::lock_guard lock(fabric_->mutex);
  context->owner->contexts++;
  context->owner->open.push_back(context);
  return context;
}

int NullVerbs::closeDevice(ibv_context* context) {
  const std::lock_guard lock(fabric_->mutex);
  NullDevice& device = ownerOf(context);
  device.contexts--;
  std::erase(device.open, context);
  ::close(context->async_fd);
  delete static_cast<NullContext*>(context);
  return 0;
}

int NullVerbs::queryPort(ibv_context* context, u8 port, ibv_port_attr* attributes) {
  if (port != 1) return EINVAL;
  const std::lock_guard lock(fabric_->mutex);
  *attributes = {};
  attributes->state = ownerOf(context).state;
  attributes->max_mtu = IBV_MTU_4096;
  attributes->active_mtu = ownerOf(context).mtu;
  attributes->gid_tbl_len = 4;
  attributes->link_layer = IBV_LINK_LAYER_ETHERNET;
  return 0;
}

/** 0: of the link alone, 1: of IPv4. */
int NullVerbs::queryGid(ibv_context* context, u8, int index, ibv_gid* gid) {
  const std::lock_guard lock(fabric_->mutex);
  *gid = {};
  if (index == ownerOf(context).gidIndex) *gid = ownerOf(context).gid;
  if (index == 0) gid->raw[0] = 0xfe, gid->raw[1] = 0x80, gid->raw[15] = 1;
  return index < 4 ? 0 : EINVAL;
}

GidType NullVerbs::gidType(ibv_context*, u8, int) { return GidType::roce2; }
int NullVerbs::numaNode(ibv_context* context) { return ownerOf(context).numaNode; }
double NullVerbs::linkSpeed(ibv_context* context, u8) {
  const std::lock_guard lock(fabric_->mutex);
  return ownerOf(context).rate * 8;
}

ibv_pd* NullVerbs::allocPd(ibv_context* context) { return new ibv_pd{context, 0}; }
int NullVerbs::deallocPd(ibv_pd* pd) {
  delete pd;
  return 0;
}

ibv_mr* NullVerbs::regMr(ibv_pd* pd, void* address, size_t length, unsigned access) {
  const std::lock_guard lock(fabric_->mutex);
  NullDevice& device = ownerOf(pd->context);
  if (device.refusesMemory) {
    errno = ENOMEM;
    return nullptr;
  }
  auto* const made = new NullMr{};
  made->context = pd->context;
  made->pd = pd;
  made->addr = address;
  made->length = length;
  made->lkey = made->rkey = fabric_->nextNumber++;
  made->access = access;
  device.regions[made->lkey] = made;
  return made;
}

ibv_mr* NullVerbs::regDmabufMr(ibv_pd* pd, u64, size_t length, u64 iova, int, unsigned access) {
  dmabufs++;
  return regMr(pd, reinterpret_cast<void*>(iova), length, access);
}

int NullVerbs::deregMr(ibv_mr* gone) {
  const std::lock_guard lock(fabric_->mutex);
  ownerOf(gone->context).regions.erase(gone->lkey);
  delete static_cast<NullMr*>(gone);
  return 0;
}

ibv_comp_channel* NullVerbs::createCompChannel(ibv_context* context) {
  return new ibv_comp_channel{context, ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE), 0};
}
int NullVerbs::destroyCompChannel(ibv_comp_channel* channel) {
  ::close(channel->fd);
  delete channel;
  return 0;
}

ibv_cq* NullVerbs::createCq(ibv_context* context, int entries, ibv_comp_channel* channel) {
  if (entries > 8192) return nullptr;
  auto* const cq = new NullCq{};
  cq->context = context;
  cq->channel = channel;
  return cq;
}
int NullVerbs::destroyCq(ibv_cq* cq) {
  delete static_cast<NullCq*>(cq);
  return 0;
}

int NullVerbs::getCqEvent(ibv_comp_channel* channel, ibv_cq** cq) {
  u64 one = 0;
  *cq = nullptr;
  return ::read(channel->fd, &one, sizeof one) == sizeof one ? 0 : -1;
}
void NullVerbs::ackCqEvents(ibv_cq*, unsigned) {}

ibv_qp* NullVerbs::createQp(ibv_pd* pd, ibv_qp_init_attr* attributes) {
  const std::lock_guard lock(fabric_->mutex);
  NullDevice& device = ownerOf(pd->context);
  if (device.refusesPairs) {
    errno = ENOMEM;
    return nullptr;
  }
  auto* const qp = new NullQp{};
  qp->context = pd->context;
  qp->pd = pd;
  qp->send_cq = attributes->send_cq;
  qp->recv_cq = attributes->recv_cq;
  qp->qp_num = fabric_->nextNumber++;
  qp->device = &device;
  qp->cap = attributes->cap;
  device.pairs[qp->qp_num] = qp;
  return qp;
}

int NullVerbs::modifyQp(ibv_qp* pair, ibv_qp_attr* attributes, int) {
  const std::lock_guard lock(fabric_->mutex);
  NullQp& qp = *static_cast<NullQp*>(pair);
  switch (attributes->qp_state) {
    case IBV_QPS_INIT:
      if (qp.state != IBV_QPS_RESET) return EINVAL;
      break;
    case IBV_QPS_RTR:
      if (qp.state != IBV_QPS_INIT) return EINVAL;
      qp.remote = *attributes;
      break;
    case IBV_QPS_RTS:
      if (qp.state != IBV_QPS_RTR) return EINVAL;
      break;
    case IBV_QPS_ERR: toError(qp); return 0;
    default: return EINVAL;
  }
  qp.state = attributes->qp_state;
  return 0;
}

int NullVerbs::destroyQp(ibv_qp* pair) {
  const std::lock_guard lock(fabric_->mutex);
  auto* const qp = static_cast<NullQp*>(pair);
  qp->device->pairs.erase(qp->qp_num);
  delete qp;
  return 0;
}

int NullVerbs::getAsyncEvent(ibv_context* context, ibv_async_event* event) {
  u64 one = 0;
  if (::read(context->async_fd, &one, sizeof one) != sizeof one) return -1;
  const std::lock_guard lock(fabric_->mutex);
  NullDevice& device = ownerOf(context);
  if (device.events.empty()) return -1;
  *event = device.events.front();
  device.events.pop_front();
  return 0;
}
void NullVerbs::ackAsyncEvent(ibv_async_event*) {}

}  // namespace mooncake::test
