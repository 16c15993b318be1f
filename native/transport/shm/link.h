// The grantee's side: a link to a process of this host. The first slice on a segment asks its owner for access; what
// can be mapped is mapped and copied by our own threads, other memory is reached by process_vm_readv and writev where the
// kernel lets us, and by a ring through which the owner copies where it does not.
//
//   post ─► all segments granted? ─ no ─► parked until the owner has answered
//            │ yes
//            ├─ small and mapped: copied at once
//            └─ jobs ─► mapped: copy threads
//                       vm:     copy threads, where nothing is to be verified
//                       staged: a slot of the ring, a request to the owner, a copy on either side
//
// Verified: for mapped memory, that what was stored has the sum that the source has afterwards; else, that what was taken out
// of the ring has the sum of what the other side put into it. To verify, the owner has to work in any case: through a ring
// that stays in the caches it copies too, at half the price of the kernel's copy and a sum on each side.
#pragma once

#include "transport/shm/channel.h"
#include "transport/shm/loop.h"
#include "transport/shm/transfer.h"
#include "transport/transport.h"

#include <condition_variable>
#include <list>
#include <shared_mutex>
#include <unordered_map>
#include <unordered_set>

namespace mooncake::shm {

class ShmLink final : public Link {
 public:
  /** `failure`: why there cannot be a link; then it is down from the start. `reach`: the best way that may be used. */
  ShmLink(TransportContext& context, std::shared_ptr<Loop> loop, LinkEvents& events, std::string path, u64 generation,
          Reach best, Status failure);
  ~ShmLink() override { close(); }

  const std::string& name() const override { return name_; }
  const Capabilities& capabilities() const override { return capabilities_; }
  LinkState state() const override { return state_; }
  Status failure() const override;
  std::string detail() const override;
  bool reaches(const Slice& slice) const override { return !slice.file; }
  void post(Slice& slice) override;
  void cancel(Batch& batch) override;
  void close() override;

 private:
  // link.cpp, on the loop's thread: the connection.
  void connect();
  void serve(u32 events);
  Status handle(Message& message, Fd descriptor);
  Status greeted(const Message& message);
  Status granted(const Message& message, const Fd& descriptor);
  void revoked(u32 token);
  void send(const Message& message, Fd descriptor = Fd());
  void fail(Status why);
  /** Watches the peer's silence while it owes an answer. */
  void await();
  void tick(u32 milliseconds);
  bool waiting() const;
  void closeIfIdle();

  // mover.cpp: slices.
  bool enter();
  void leave();
  bool copySmall(const Slice& slice, Status& status);
  /** Finds the grants, and the segments that have none yet (`missing`). Not ok: the slice cannot be moved. */
  Status resolve(Transfer& transfer);
  void start(Transfer& transfer);
  void submit(Job& job);
  void perform(Job& job);
  Status move(Job& job);
  Status moveMapped(const Job& job);
  Status moveVm(const Job& job);
  Status moveStaged(Job& job);
  Status stopped(const Job& job, const Grant& grant) const;
  Status compare(const Job& job) const;
  /** Whether the peer's end of the connection is open: while it is, its process has its number. From any thread that is
      inside. */
  bool connected() const;
  void finish(Job& job, Status status);
  void release(Transfer& transfer);
  void complete(Transfer& transfer);
  // On the loop's thread.
  void park(Transfer& transfer);
  /** Those that need no segment any more that is asked for. */
  void unpark();
  /** Starts it, or asks for what it lacks and parks it. */
  void proceed(Transfer& transfer);
  /** Asks the owner for its part of a staged job. */
  void request(Job& job);
  void acquireSlot(Job& job);
  void releaseSlot(u32 slot);
  void answered(const Message& message);
  /** Ends what waits for a batch that was cancelled. */
  void sweep();
  /** The kernel refuses process_vm from now on: segments are asked for again, to be staged. */
  void forgetVm();

  TransportContext& context_;
  LinkEvents& events_;
  std::shared_ptr<Loop> loop_;
  const std::string name_;
  const std::string path_;
  const u64 generation_;
  const Reach best_;
  Capabilities capabilities_;
  std::atomic<LinkState> state_{LinkState::connecting};

  /** Guards what follows up to `grants_`. */
  mutable std::mutex mutex_;
  std::condition_variable idle_;
  Status failure_;
  /** How memory that cannot be mapped is reached, and why not better. */
  std::string detail_;
  std::unordered_set<Transfer*> transfers_;
  u32 inside_ = 0;
  bool closing_ = false;
  bool closed_ = false;

  mutable std::shared_mutex grantsMutex_;
  /** By the peer's segment. */
  std::unordered_map<u32, std::shared_ptr<Grant>> grants_;

  /** process_vm works. May be taken back by a copy thread that finds it refused. */
  std::atomic<bool> vm_{false};
  pid_t pid_ = 0;
  Mapping ring_;

  // The loop's thread alone.
  Channel channel_;
  bool greeted_ = false;
  bool ticking_ = false;
  u32 silence_ = 0;
  u32 sincePing_ = 0;
  /** For how long the owner has not ended what was given up. */
  u32 overdue_ = 0;
  u32 nextNumber_ = 1;
  /** Segments by the numbers of grants that were asked for, and all of them. */
  std::unordered_map<u32, u32> asked_;
  std::unordered_set<u32> expected_;
  std::list<Transfer*> parked_;
  std::unordered_map<u32, Job*> pending_;
  std::list<Job*> slotless_;
  std::vector<u32> freeSlots_;
  /** Slots of requests that were given up, until the owner has answered. */
  std::unordered_map<u32, u32> orphans_;
};

}  // namespace mooncake::shm
