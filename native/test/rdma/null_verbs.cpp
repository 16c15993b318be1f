#include "test/rdma/null_verbs.h"

#include "transport/rdma/device.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace mooncake::test {

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
  context->ops = nullOps();
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
PciPlace NullVerbs::place(ibv_context* context) { return ownerOf(context).place; }
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

/** What stands in for a dma-buf is any descriptor that can be mapped. */
ibv_mr* NullVerbs::regDmabufMr(ibv_pd* pd, u64 offset, size_t length, u64 iova, int fd, unsigned access) {
  dmabufs++;
  if (ownerOf(pd->context).refusesDmabufs) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  const u64 within = offset % 4096;
  void* const mapped = ::mmap(nullptr, length + within, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset - within));
  ibv_mr* const made = mapped == MAP_FAILED ? nullptr : regMr(pd, reinterpret_cast<void*>(iova), length, access);
  if (made != nullptr) {
    auto& dmabuf = *static_cast<NullMr*>(made);
    dmabuf.mapped = static_cast<u8*>(mapped) + within;
    dmabuf.within = within;
  } else if (mapped != MAP_FAILED) {
    ::munmap(mapped, length + within);
  }
  return made;
}

int NullVerbs::deregMr(ibv_mr* gone) {
  const std::lock_guard lock(fabric_->mutex);
  ownerOf(gone->context).regions.erase(gone->lkey);
  auto* const mr = static_cast<NullMr*>(gone);
  if (mr->mapped != nullptr) ::munmap(mr->mapped - mr->within, mr->length + mr->within);
  delete mr;
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
