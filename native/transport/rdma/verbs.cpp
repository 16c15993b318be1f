#include "transport/rdma/verbs.h"

#include <dlfcn.h>
#include <fcntl.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <string>

namespace mooncake::rdma {

namespace {

/** A line of a file of sysfs; empty where there is none. */
std::string readLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/** The library's functions, by their symbols. */
struct Library {
  ibv_device** (*get_device_list)(int*);
  void (*free_device_list)(ibv_device**);
  const char* (*get_device_name)(ibv_device*);
  ibv_context* (*open_device)(ibv_device*);
  int (*close_device)(ibv_context*);
  int (*query_port)(ibv_context*, u8, ibv_port_attr*);
  int (*query_gid)(ibv_context*, u8, int, ibv_gid*);
  ibv_pd* (*alloc_pd)(ibv_context*);
  int (*dealloc_pd)(ibv_pd*);
  ibv_mr* (*reg_mr)(ibv_pd*, void*, size_t, int);
  int (*dereg_mr)(ibv_mr*);
  ibv_comp_channel* (*create_comp_channel)(ibv_context*);
  int (*destroy_comp_channel)(ibv_comp_channel*);
  ibv_cq* (*create_cq)(ibv_context*, int, void*, ibv_comp_channel*, int);
  int (*destroy_cq)(ibv_cq*);
  int (*get_cq_event)(ibv_comp_channel*, ibv_cq**, void**);
  void (*ack_cq_events)(ibv_cq*, unsigned);
  ibv_qp* (*create_qp)(ibv_pd*, ibv_qp_init_attr*);
  int (*modify_qp)(ibv_qp*, ibv_qp_attr*, int);
  int (*destroy_qp)(ibv_qp*);
  int (*get_async_event)(ibv_context*, ibv_async_event*);
  void (*ack_async_event)(ibv_async_event*);
  // Of newer libraries; null in others.
  ibv_mr* (*reg_mr_iova2)(ibv_pd*, void*, size_t, u64, unsigned);
  ibv_mr* (*reg_dmabuf_mr)(ibv_pd*, u64, size_t, u64, int, int);
};

template <class Function>
bool find(void* library, const char* symbol, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, symbol));
  return function != nullptr;
}

class LibraryVerbs final : public Verbs {
 public:
  explicit LibraryVerbs(const Library& library) : at_(library) {}

  ibv_device** getDeviceList(int* count) override { return at_.get_device_list(count); }
  void freeDeviceList(ibv_device** list) override { at_.free_device_list(list); }
  const char* deviceName(ibv_device* device) override { return at_.get_device_name(device); }

  ibv_context* openDevice(ibv_device* device) override {
    ibv_context* const context = at_.open_device(device);
    if (context != nullptr) ::fcntl(context->async_fd, F_SETFL, O_NONBLOCK);
    return context;
  }
  int closeDevice(ibv_context* context) override { return at_.close_device(context); }

  /** The symbol fills a shorter structure, which ends behind link_layer. */
  int queryPort(ibv_context* context, u8 port, ibv_port_attr* attributes) override {
    *attributes = {};
    return at_.query_port(context, port, attributes);
  }
  int queryGid(ibv_context* context, u8 port, int index, ibv_gid* gid) override {
    return at_.query_gid(context, port, index, gid);
  }

  GidType gidType(ibv_context* context, u8 port, int index) override {
    const std::string text = readLine(portPath(context, port) + "/gid_attrs/types/" + std::to_string(index));
    if (text == "RoCE v2") return GidType::roce2;
    // So both "IB" and "RoCE v1" are called.
    if (text == "IB/RoCE v1") return linkLayer(context, port) == "Ethernet" ? GidType::roce1 : GidType::infiniband;
    return text.empty() ? GidType::none : GidType::infiniband;
  }

  int numaNode(ibv_context* context) override {
    const std::string text = readLine(path(context) + "/device/numa_node");
    return text.empty() ? -1 : std::atoi(text.c_str());
  }

  PciPlace place(ibv_context* context) override { return placeOfNic(at_.get_device_name(context->device)); }

  /** "100 Gb/sec (4X EDR)". */
  double linkSpeed(ibv_context* context, u8 port) override {
    return std::atof(readLine(portPath(context, port) + "/rate").c_str()) * 1e9;
  }

  ibv_pd* allocPd(ibv_context* context) override { return at_.alloc_pd(context); }
  int deallocPd(ibv_pd* pd) override { return at_.dealloc_pd(pd); }

  ibv_mr* regMr(ibv_pd* pd, void* address, size_t length, unsigned access) override {
    if (at_.reg_mr_iova2 != nullptr) {
      return at_.reg_mr_iova2(pd, address, length, reinterpret_cast<u64>(address), access);
    }
    return at_.reg_mr(pd, address, length, static_cast<int>(access & ~unsigned{IBV_ACCESS_RELAXED_ORDERING}));
  }
  ibv_mr* regDmabufMr(ibv_pd* pd, u64 offset, size_t length, u64 iova, int fd, unsigned access) override {
    if (at_.reg_dmabuf_mr != nullptr) return at_.reg_dmabuf_mr(pd, offset, length, iova, fd, static_cast<int>(access));
    errno = ENOSYS;
    return nullptr;
  }
  int deregMr(ibv_mr* region) override { return at_.dereg_mr(region); }

  ibv_comp_channel* createCompChannel(ibv_context* context) override {
    ibv_comp_channel* const channel = at_.create_comp_channel(context);
    if (channel != nullptr) ::fcntl(channel->fd, F_SETFL, O_NONBLOCK);
    return channel;
  }
  int destroyCompChannel(ibv_comp_channel* channel) override { return at_.destroy_comp_channel(channel); }
  ibv_cq* createCq(ibv_context* context, int entries, ibv_comp_channel* channel) override {
    return at_.create_cq(context, entries, nullptr, channel, 0);
  }
  int destroyCq(ibv_cq* cq) override { return at_.destroy_cq(cq); }
  int getCqEvent(ibv_comp_channel* channel, ibv_cq** cq) override {
    void* context = nullptr;
    return at_.get_cq_event(channel, cq, &context);
  }
  void ackCqEvents(ibv_cq* cq, unsigned count) override { at_.ack_cq_events(cq, count); }

  ibv_qp* createQp(ibv_pd* pd, ibv_qp_init_attr* attributes) override { return at_.create_qp(pd, attributes); }
  int modifyQp(ibv_qp* qp, ibv_qp_attr* attributes, int mask) override { return at_.modify_qp(qp, attributes, mask); }
  int destroyQp(ibv_qp* qp) override { return at_.destroy_qp(qp); }
  int getAsyncEvent(ibv_context* context, ibv_async_event* event) override { return at_.get_async_event(context, event); }
  void ackAsyncEvent(ibv_async_event* event) override { at_.ack_async_event(event); }

 private:
  std::string path(ibv_context* context) {
    return std::string("/sys/class/infiniband/") + at_.get_device_name(context->device);
  }
  std::string portPath(ibv_context* context, u8 port) { return path(context) + "/ports/" + std::to_string(port); }
  std::string linkLayer(ibv_context* context, u8 port) { return readLine(portPath(context, port) + "/link_layer"); }

  const Library at_;
};

Expected<std::shared_ptr<Verbs>> load() {
  void* const library = ::dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Status(Code::notSupported, ::dlerror());
  Library at{};
  const bool complete =
      find(library, "ibv_get_device_list", at.get_device_list) && find(library, "ibv_free_device_list", at.free_device_list) &&
      find(library, "ibv_get_device_name", at.get_device_name) && find(library, "ibv_open_device", at.open_device) &&
      find(library, "ibv_close_device", at.close_device) && find(library, "ibv_query_port", at.query_port) &&
      find(library, "ibv_query_gid", at.query_gid) && find(library, "ibv_alloc_pd", at.alloc_pd) &&
      find(library, "ibv_dealloc_pd", at.dealloc_pd) && find(library, "ibv_reg_mr", at.reg_mr) &&
      find(library, "ibv_dereg_mr", at.dereg_mr) && find(library, "ibv_create_comp_channel", at.create_comp_channel) &&
      find(library, "ibv_destroy_comp_channel", at.destroy_comp_channel) && find(library, "ibv_create_cq", at.create_cq) &&
      find(library, "ibv_destroy_cq", at.destroy_cq) && find(library, "ibv_get_cq_event", at.get_cq_event) &&
      find(library, "ibv_ack_cq_events", at.ack_cq_events) && find(library, "ibv_create_qp", at.create_qp) &&
      find(library, "ibv_modify_qp", at.modify_qp) && find(library, "ibv_destroy_qp", at.destroy_qp) &&
      find(library, "ibv_get_async_event", at.get_async_event) && find(library, "ibv_ack_async_event", at.ack_async_event);
  if (!complete) {
    // Kept open in any case: providers that it loaded may have threads.
    return Status(Code::notSupported, std::string("libibverbs.so.1 is not what is needed: ") + ::dlerror());
  }
  find(library, "ibv_reg_mr_iova2", at.reg_mr_iova2);
  find(library, "ibv_reg_dmabuf_mr", at.reg_dmabuf_mr);
  return std::shared_ptr<Verbs>(std::make_shared<LibraryVerbs>(at));
}

}  // namespace

Expected<std::shared_ptr<Verbs>> systemVerbs() {
  static const Expected<std::shared_ptr<Verbs>> loaded = load();
  return loaded;
}

std::string statusText(ibv_wc_status status) {
  const char* text = "failed";
  switch (status) {
    case IBV_WC_SUCCESS: text = "success"; break;
    case IBV_WC_LOC_QP_OP_ERR: text = "local queue pair operation error"; break;
    case IBV_WC_LOC_PROT_ERR: text = "local protection error"; break;
    case IBV_WC_WR_FLUSH_ERR: text = "flushed"; break;
    case IBV_WC_LOC_ACCESS_ERR: text = "local access error"; break;
    case IBV_WC_REM_INV_REQ_ERR: text = "remote invalid request"; break;
    case IBV_WC_REM_ACCESS_ERR: text = "remote access error"; break;
    case IBV_WC_REM_OP_ERR: text = "remote operation error"; break;
    case IBV_WC_RETRY_EXC_ERR: text = "transport retries exceeded"; break;
    case IBV_WC_RNR_RETRY_EXC_ERR: text = "receiver not ready"; break;
    case IBV_WC_GENERAL_ERR: text = "general error"; break;
  }
  return std::string(text) + " (" + std::to_string(status) + ")";
}

}  // namespace mooncake::rdma
