// libibverbs as far as it is used here: its types, written down so that a build needs no header of it, and its calls behind an
// interface, so that a test can put a device of its own behind them. Layouts and values are those of rdma-core's libibverbs/verbs.h
// (IBVERBS_1.1 of the library's symbols), which may be used under its BSD licence (THIRD_PARTY_NOTICES); comments there say what
// each field is. What the fast path calls (post_send, poll_cq) are pointers in a context, as in the library.
#pragma once

#include "engine/status.h"
#include "topology/pcie.h"

#include <pthread.h>

#include <memory>

namespace mooncake::rdma {

struct ibv_device;
struct ibv_context;
struct ibv_srq;
struct ibv_mw;
struct ibv_mw_bind;
struct ibv_ah;

union ibv_gid {
  u8 raw[16];
  struct {
    u64 subnet_prefix;
    u64 interface_id;
  } global;
};

enum ibv_mtu : u32 { IBV_MTU_256 = 1, IBV_MTU_512, IBV_MTU_1024, IBV_MTU_2048, IBV_MTU_4096 };

enum ibv_port_state : u32 { IBV_PORT_NOP, IBV_PORT_DOWN, IBV_PORT_INIT, IBV_PORT_ARMED, IBV_PORT_ACTIVE };

enum : u8 { IBV_LINK_LAYER_UNSPECIFIED, IBV_LINK_LAYER_INFINIBAND, IBV_LINK_LAYER_ETHERNET };

struct ibv_port_attr {
  ibv_port_state state;
  ibv_mtu max_mtu;
  ibv_mtu active_mtu;
  int gid_tbl_len;
  u32 port_cap_flags;
  u32 max_msg_sz;
  u32 bad_pkey_cntr;
  u32 qkey_viol_cntr;
  u16 pkey_tbl_len;
  u16 lid;
  u16 sm_lid;
  u8 lmc;
  u8 max_vl_num;
  u8 sm_sl;
  u8 subnet_timeout;
  u8 init_type_reply;
  u8 active_width;
  u8 active_speed;
  u8 phys_state;
  u8 link_layer;
  u8 flags;
  u16 port_cap_flags2;
};

enum ibv_event_type : u32 {
  IBV_EVENT_CQ_ERR,
  IBV_EVENT_QP_FATAL,
  IBV_EVENT_QP_REQ_ERR,
  IBV_EVENT_QP_ACCESS_ERR,
  IBV_EVENT_COMM_EST,
  IBV_EVENT_SQ_DRAINED,
  IBV_EVENT_PATH_MIG,
  IBV_EVENT_PATH_MIG_ERR,
  IBV_EVENT_DEVICE_FATAL,
  IBV_EVENT_PORT_ACTIVE,
  IBV_EVENT_PORT_ERR,
  IBV_EVENT_LID_CHANGE,
  IBV_EVENT_PKEY_CHANGE,
  IBV_EVENT_SM_CHANGE,
  IBV_EVENT_SRQ_ERR,
  IBV_EVENT_SRQ_LIMIT_REACHED,
  IBV_EVENT_QP_LAST_WQE_REACHED,
  IBV_EVENT_CLIENT_REREGISTER,
  IBV_EVENT_GID_CHANGE,
};

struct ibv_cq;
struct ibv_qp;

struct ibv_async_event {
  union {
    ibv_cq* cq;
    ibv_qp* qp;
    int port_num;
  } element;
  ibv_event_type event_type;
};

enum ibv_wc_status : u32 {
  IBV_WC_SUCCESS = 0,
  IBV_WC_LOC_QP_OP_ERR = 2,
  IBV_WC_LOC_PROT_ERR = 4,
  IBV_WC_WR_FLUSH_ERR = 5,
  IBV_WC_LOC_ACCESS_ERR = 8,
  IBV_WC_REM_INV_REQ_ERR = 9,
  IBV_WC_REM_ACCESS_ERR = 10,
  IBV_WC_REM_OP_ERR = 11,
  IBV_WC_RETRY_EXC_ERR = 12,
  IBV_WC_RNR_RETRY_EXC_ERR = 13,
  IBV_WC_GENERAL_ERR = 21,
};

enum ibv_wc_opcode : u32 { IBV_WC_SEND = 0, IBV_WC_RDMA_WRITE = 1, IBV_WC_RDMA_READ = 2, IBV_WC_RECV = 128 };

struct ibv_wc {
  u64 wr_id;
  ibv_wc_status status;
  ibv_wc_opcode opcode;
  u32 vendor_err;
  u32 byte_len;
  u32 imm_data;
  u32 qp_num;
  u32 src_qp;
  unsigned wc_flags;
  u16 pkey_index;
  u16 slid;
  u8 sl;
  u8 dlid_path_bits;
};

enum : unsigned {
  IBV_ACCESS_LOCAL_WRITE = 1,
  IBV_ACCESS_REMOTE_WRITE = 1 << 1,
  IBV_ACCESS_REMOTE_READ = 1 << 2,
  IBV_ACCESS_REMOTE_ATOMIC = 1 << 3,
  IBV_ACCESS_RELAXED_ORDERING = 1 << 20,
};

struct ibv_pd {
  ibv_context* context;
  u32 handle;
};

struct ibv_mr {
  ibv_context* context;
  ibv_pd* pd;
  void* addr;
  size_t length;
  u32 handle;
  u32 lkey;
  u32 rkey;
};

struct ibv_global_route {
  ibv_gid dgid;
  u32 flow_label;
  u8 sgid_index;
  u8 hop_limit;
  u8 traffic_class;
};

struct ibv_ah_attr {
  ibv_global_route grh;
  u16 dlid;
  u8 sl;
  u8 src_path_bits;
  u8 static_rate;
  u8 is_global;
  u8 port_num;
};

struct ibv_qp_cap {
  u32 max_send_wr;
  u32 max_recv_wr;
  u32 max_send_sge;
  u32 max_recv_sge;
  u32 max_inline_data;
};

enum ibv_qp_type : u32 { IBV_QPT_RC = 2 };

struct ibv_qp_init_attr {
  void* qp_context;
  ibv_cq* send_cq;
  ibv_cq* recv_cq;
  ibv_srq* srq;
  ibv_qp_cap cap;
  ibv_qp_type qp_type;
  int sq_sig_all;
};

enum : int {
  IBV_QP_STATE = 1 << 0,
  IBV_QP_ACCESS_FLAGS = 1 << 3,
  IBV_QP_PKEY_INDEX = 1 << 4,
  IBV_QP_PORT = 1 << 5,
  IBV_QP_AV = 1 << 7,
  IBV_QP_PATH_MTU = 1 << 8,
  IBV_QP_TIMEOUT = 1 << 9,
  IBV_QP_RETRY_CNT = 1 << 10,
  IBV_QP_RNR_RETRY = 1 << 11,
  IBV_QP_RQ_PSN = 1 << 12,
  IBV_QP_MAX_QP_RD_ATOMIC = 1 << 13,
  IBV_QP_MIN_RNR_TIMER = 1 << 15,
  IBV_QP_SQ_PSN = 1 << 16,
  IBV_QP_MAX_DEST_RD_ATOMIC = 1 << 17,
  IBV_QP_DEST_QPN = 1 << 20,
};

enum ibv_qp_state : u32 { IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QPS_SQD, IBV_QPS_SQE, IBV_QPS_ERR };

struct ibv_qp_attr {
  ibv_qp_state qp_state;
  ibv_qp_state cur_qp_state;
  ibv_mtu path_mtu;
  u32 path_mig_state;
  u32 qkey;
  u32 rq_psn;
  u32 sq_psn;
  u32 dest_qp_num;
  unsigned qp_access_flags;
  ibv_qp_cap cap;
  ibv_ah_attr ah_attr;
  ibv_ah_attr alt_ah_attr;
  u16 pkey_index;
  u16 alt_pkey_index;
  u8 en_sqd_async_notify;
  u8 sq_draining;
  u8 max_rd_atomic;
  u8 max_dest_rd_atomic;
  u8 min_rnr_timer;
  u8 port_num;
  u8 timeout;
  u8 retry_cnt;
  u8 rnr_retry;
  u8 alt_port_num;
  u8 alt_timeout;
  u32 rate_limit;
};

enum ibv_wr_opcode : u32 { IBV_WR_RDMA_WRITE = 0, IBV_WR_SEND = 2, IBV_WR_RDMA_READ = 4 };

enum : unsigned { IBV_SEND_SIGNALED = 1 << 1, IBV_SEND_INLINE = 1 << 3 };

struct ibv_sge {
  u64 addr;
  u32 length;
  u32 lkey;
};

struct ibv_send_wr {
  u64 wr_id;
  ibv_send_wr* next;
  ibv_sge* sg_list;
  int num_sge;
  ibv_wr_opcode opcode;
  unsigned send_flags;
  u32 imm_data;
  union {
    struct {
      u64 remote_addr;
      u32 rkey;
    } rdma;
    u64 others[4];
  } wr;
  u32 xrc_remote_srqn;
  union {
    u64 others[6];
  } more;
};

struct ibv_recv_wr {
  u64 wr_id;
  ibv_recv_wr* next;
  ibv_sge* sg_list;
  int num_sge;
};

struct ibv_comp_channel {
  ibv_context* context;
  int fd;
  int refcnt;
};

/** The fields that are read; the library's own are longer. */
struct ibv_cq {
  ibv_context* context;
  ibv_comp_channel* channel;
  void* cq_context;
};

/** Likewise. */
struct ibv_qp {
  ibv_context* context;
  void* qp_context;
  ibv_pd* pd;
  ibv_cq* send_cq;
  ibv_cq* recv_cq;
  ibv_srq* srq;
  u32 handle;
  u32 qp_num;
};

using ibv_unused_op = void (*)();

struct ibv_context_ops {
  ibv_unused_op before[11];
  int (*poll_cq)(ibv_cq* cq, int entries, ibv_wc* wc);
  int (*req_notify_cq)(ibv_cq* cq, int solicited_only);
  ibv_unused_op between[12];
  int (*post_send)(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** bad);
  int (*post_recv)(ibv_qp* qp, ibv_recv_wr* wr, ibv_recv_wr** bad);
  ibv_unused_op after[5];
};

struct ibv_context {
  ibv_device* device;
  ibv_context_ops ops;
  int cmd_fd;
  int async_fd;
  int num_comp_vectors;
  pthread_mutex_t mutex;
  void* abi_compat;
};

/** How a GID of a port is meant, as sysfs has it in gid_attrs/types. */
enum class GidType : u8 { none, infiniband, roce1, roce2 };

/** Calls of the library, or of a device of a test. As in the library: null or a number other than 0 is a failure, whose reason
    is in errno, or for the calls that return int may be that number. */
class Verbs {
 public:
  virtual ~Verbs() = default;

  virtual ibv_device** getDeviceList(int* count) = 0;
  virtual void freeDeviceList(ibv_device** list) = 0;
  virtual const char* deviceName(ibv_device* device) = 0;
  virtual ibv_context* openDevice(ibv_device* device) = 0;
  virtual int closeDevice(ibv_context* context) = 0;
  virtual int queryPort(ibv_context* context, u8 port, ibv_port_attr* attributes) = 0;
  virtual int queryGid(ibv_context* context, u8 port, int index, ibv_gid* gid) = 0;
  virtual GidType gidType(ibv_context* context, u8 port, int index) = 0;
  /** -1: not known. */
  virtual int numaNode(ibv_context* context) = 0;
  virtual PciPlace place(ibv_context* context) = 0;
  /** Of a port, in bits per second; 0: not known. */
  virtual double linkSpeed(ibv_context* context, u8 port) = 0;

  virtual ibv_pd* allocPd(ibv_context* context) = 0;
  virtual int deallocPd(ibv_pd* pd) = 0;
  /** `access` may have IBV_ACCESS_RELAXED_ORDERING, which is left out where the library does not know it. */
  virtual ibv_mr* regMr(ibv_pd* pd, void* address, size_t length, unsigned access) = 0;
  /** Null with ENOSYS where the library has no such call. */
  virtual ibv_mr* regDmabufMr(ibv_pd* pd, u64 offset, size_t length, u64 iova, int fd, unsigned access) = 0;
  virtual int deregMr(ibv_mr* region) = 0;

  virtual ibv_comp_channel* createCompChannel(ibv_context* context) = 0;
  virtual int destroyCompChannel(ibv_comp_channel* channel) = 0;
  virtual ibv_cq* createCq(ibv_context* context, int entries, ibv_comp_channel* channel) = 0;
  virtual int destroyCq(ibv_cq* cq) = 0;
  /** The channel's descriptor does not block: -1 where there is no event. */
  virtual int getCqEvent(ibv_comp_channel* channel, ibv_cq** cq) = 0;
  virtual void ackCqEvents(ibv_cq* cq, unsigned count) = 0;

  virtual ibv_qp* createQp(ibv_pd* pd, ibv_qp_init_attr* attributes) = 0;
  virtual int modifyQp(ibv_qp* qp, ibv_qp_attr* attributes, int mask) = 0;
  virtual int destroyQp(ibv_qp* qp) = 0;

  /** The context's async_fd does not block: -1 where there is no event. */
  virtual int getAsyncEvent(ibv_context* context, ibv_async_event* event) = 0;
  virtual void ackAsyncEvent(ibv_async_event* event) = 0;
};

/** libibverbs of this machine, loaded when it is first asked for and kept; notSupported with the loader's reason where it cannot
    be loaded. */
Expected<std::shared_ptr<Verbs>> systemVerbs();

/** "retry exceeded (12)". */
std::string statusText(ibv_wc_status status);

}  // namespace mooncake::rdma
