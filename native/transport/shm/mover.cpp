// How a link moves slices; link.h has the drawing.
#include "transport/shm/link.h"

#include "checksum/copy.h"
#include "transport/copy_pool.h"
#include "transport/shm/vm.h"

#include <poll.h>

#include <algorithm>

namespace mooncake::shm {

namespace {

/** Slices that are copied where they are posted: in less time than a thread takes to wake up. */
constexpr u64 SMALL_BYTES = 64 << 10;
constexpr u32 SMALL_RECORDS = 64;
/** Between two looks at whether to go on. */
constexpr u64 TILE_BYTES = 256 << 10;
constexpr u32 NO_SLOT = ~u32{0};

Status outside(u32 segment, u64 offset, u64 length) {
  return {Code::segment, std::to_string(length) + " bytes at " + std::to_string(offset) + " leave the peer's segment " +
                             std::to_string(segment)};
}

Status changed(u64 bytes) {
  return {Code::corrupt, "checksums of " + std::to_string(bytes) + " bytes differ between source and destination"};
}

/** Ok where the grant allows that access. */
Status allows(const Grant& grant, const Piece& piece, bool write) {
  if (piece.remoteOffset > grant.length || piece.length > grant.length - piece.remoteOffset) {
    return outside(grant.segment, piece.remoteOffset, piece.length);
  }
  if (write && !grant.writable) return {Code::segment, "the peer's segment " + std::to_string(grant.segment) + " is read-only"};
  return {};
}

/** Blocks may be small; it is the batch that passes through the caches. */
Store storeFor(const Transfer& transfer) {
  return transfer.slice.batch->bytes() >= streamingThreshold() ? Store::streaming : Store::cached;
}

/** One run of mapped memory. */
Status copyRun(u8* to, const u8* from, u64 length, bool verify, Store store) {
  if (!verify) {
    copyBytes(to, from, length, store);
    return {};
  }
  return copyUnchanged(to, from, length, store) ? Status() : changed(length);
}

}  // namespace

bool ShmLink::enter() {
  const std::lock_guard lock(mutex_);
  if (closing_) return false;
  inside_++;
  return true;
}

void ShmLink::leave() {
  const std::lock_guard lock(mutex_);
  // Posted before the count is down: close() ends, and the loop with it, as soon as nobody is inside.
  if (inside_ == 1 && closing_) loop_->post([this] { closeIfIdle(); });
  if (--inside_ == 0) idle_.notify_all();
}

void ShmLink::post(Slice& slice) {
  if (!enter()) return events_.settled(slice, failure(), false);
  const bool up = state_ == LinkState::up;
  if (Status status; up && copySmall(slice, status)) {
    const bool verified = status.ok() && slice.batch->verify();
    events_.settled(slice, std::move(status), verified);
    return leave();
  }
  auto& transfer = *new Transfer(slice);
  {
    const std::lock_guard lock(mutex_);
    transfers_.insert(&transfer);
  }
  if (!up) return loop_->post([this, &transfer] { park(transfer); });
  if (Status status = resolve(transfer); !status.ok()) {
    transfer.fail(std::move(status));
    return complete(transfer);
  }
  if (!transfer.missing.empty()) return loop_->post([this, &transfer] { park(transfer); });
  start(transfer);
}

void ShmLink::cancel(Batch& batch) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  bool any = false;
  for (Transfer* const transfer : transfers_) {
    if (transfer->slice.batch != &batch) continue;
    transfer->cancelled = true;
    any = true;
  }
  if (any) loop_->post([this] { sweep(); });
}

bool ShmLink::copySmall(const Slice& slice, Status& status) {
  if (slice.bytes > SMALL_BYTES || slice.count > SMALL_RECORDS) return false;
  const bool write = slice.batch->op() == Op::write;
  const bool verify = slice.batch->verify();
  // Held for some microseconds, in which no grant goes.
  const std::shared_lock lock(grantsMutex_);
  bool mapped = true;
  slice.forEach([&](const Piece& piece) {
    const auto found = grants_.find(piece.remote);
    mapped = mapped && found != grants_.end() && found->second->reach == Reach::mapped;
    if (mapped && status.ok()) status = allows(*found->second, piece, write);
  });
  if (!mapped || !status.ok()) return mapped;
  // The loop may not have seen yet that the peer has gone, whose memory is still mapped here.
  if (!connected()) {
    status = {Code::peer, "the peer has gone (" + path_ + ")"};
    return true;
  }
  slice.forEach([&](const Piece& piece) {
    u8* const remote = grants_.find(piece.remote)->second->mapping.data() + piece.remoteOffset;
    Status copied =
        copyRun(write ? remote : piece.address, write ? piece.address : remote, piece.length, verify, Store::cached);
    if (!copied.ok()) status = std::move(copied);
  });
  return true;
}

Status ShmLink::resolve(Transfer& transfer) {
  transfer.missing.clear();
  transfer.grants.clear();
  transfer.extents.clear();
  Status status;
  const std::shared_lock lock(grantsMutex_);
  transfer.slice.forEach([&](const Piece& piece) {
    const auto found = grants_.find(piece.remote);
    if (found == grants_.end()) {
      transfer.missing.insert(piece.remote);
      return;
    }
    if (status.ok()) status = allows(*found->second, piece, transfer.write);
    if (status.ok()) transfer.add(found->second, piece.address, piece.remoteOffset, piece.length);
  });
  return status;
}

void ShmLink::park(Transfer& transfer) {
  state_ == LinkState::connecting ? parked_.push_back(&transfer) : proceed(transfer);
}

void ShmLink::unpark() {
  std::list<Transfer*> parked;
  parked.swap(parked_);
  for (Transfer* const transfer : parked) {
    const bool waits = !transfer->missing.empty() && !transfer->cancelled && state_ == LinkState::up;
    waits ? parked_.push_back(transfer) : proceed(*transfer);
  }
}

void ShmLink::proceed(Transfer& transfer) {
  Status status = state_ == LinkState::down ? failure()
                  : transfer.cancelled      ? Status(Code::aborted, "the batch was cancelled")
                                            : resolve(transfer);
  if (!status.ok()) {
    transfer.fail(std::move(status));
    return complete(transfer);
  }
  if (transfer.missing.empty()) return start(transfer);
  parked_.push_back(&transfer);
  // Sending may fail the link, and with it this transfer.
  const std::vector<u32> wanted(transfer.missing.begin(), transfer.missing.end());
  for (const u32 segment : wanted) {
    if (!expected_.insert(segment).second) continue;
    Message message;
    message.type = MessageType::grantRequest;
    message.token = nextNumber_++;
    message.grant.segment = segment;
    asked_.emplace(message.token, segment);
    await();
    send(message);
  }
}

void ShmLink::start(Transfer& transfer) {
  transfer.cut();
  bool asks = false;
  const bool small = transfer.slice.bytes <= SMALL_BYTES && transfer.slice.count <= SMALL_RECORDS;
  for (Job& job : transfer.jobs) {
    if (job.reach == Reach::staged) {
      asks = true;
    } else {
      small ? perform(job) : submit(job);
    }
  }
  if (!asks) return release(transfer);
  loop_->post([this, &transfer] {
    for (Job& job : transfer.jobs) {
      if (job.reach == Reach::staged) acquireSlot(job);
    }
    release(transfer);
  });
}

void ShmLink::submit(Job& job) {
  const auto run = [](void* owner, void* item) { static_cast<ShmLink*>(owner)->perform(*static_cast<Job*>(item)); };
  if (!context_.copies.submit({run, this, &job})) perform(job);
}

void ShmLink::perform(Job& job) {
  Status status = move(job);
  const bool staged = job.reach == Reach::staged;
  if (status.ok() && staged && job.transfer->write) return loop_->post([this, &job] { request(job); });
  if (status.ok() && staged) status = compare(job);
  if (job.hasSlot) loop_->post([this, slot = job.slot] { releaseSlot(slot); });
  finish(job, std::move(status));
}

Status ShmLink::move(Job& job) {
  switch (job.reach) {
    case Reach::mapped: return moveMapped(job);
    case Reach::vm: return moveVm(job);
    case Reach::staged: return moveStaged(job);
  }
  return {};
}

Status ShmLink::stopped(const Job& job, const Grant& grant) const {
  if (state_ == LinkState::down) return failure();
  if (job.transfer->cancelled) return {Code::aborted, "the batch was cancelled"};
  if (grant.revoked) return {Code::segment, "the peer takes its segment " + std::to_string(grant.segment) + " away"};
  return {};
}

Status ShmLink::moveMapped(const Job& job) {
  const Transfer& transfer = *job.transfer;
  const Store store = storeFor(transfer);
  for (u32 i = job.first; i < job.first + job.count; i++) {
    const Extent& extent = transfer.extents[i];
    u8* const remote = extent.grant->mapping.data() + extent.offset;
    for (u64 at = 0; at < extent.length; at += TILE_BYTES) {
      if (Status status = stopped(job, *extent.grant); !status.ok()) return status;
      u8* const to = (transfer.write ? remote : extent.local) + at;
      const u8* const from = (transfer.write ? extent.local : remote) + at;
      Status status = copyRun(to, from, std::min(TILE_BYTES, extent.length - at), transfer.verify, store);
      if (!status.ok()) return status;
    }
  }
  return {};
}

Status ShmLink::moveVm(const Job& job) {
  const Transfer& transfer = *job.transfer;
  std::vector<iovec> local;
  std::vector<iovec> remote;
  local.reserve(job.count);
  remote.reserve(job.count);
  for (u32 i = job.first; i < job.first + job.count; i++) {
    const Extent& extent = transfer.extents[i];
    if (Status status = stopped(job, *extent.grant); !status.ok()) return status;
    local.push_back({extent.local, extent.length});
    remote.push_back({reinterpret_cast<void*>(extent.grant->address + extent.offset), extent.length});
  }
  // The number of a process that ended may be another's by now.
  const Status gone{Code::peer, "the peer has gone (" + path_ + ")"};
  if (!connected()) return gone;
  Status status = moveProcess(pid_, transfer.write, local, remote);
  if (status.ok() && !transfer.write && !connected()) return gone;
  if (status.code == Code::notSupported && vm_.exchange(false)) loop_->post([this] { forgetVm(); });
  return status;
}

Status ShmLink::moveStaged(Job& job) {
  const Transfer& transfer = *job.transfer;
  const Store store = transfer.write ? Store::cached : storeFor(transfer);
  u8* slot = ring_.data() + u64{job.slot} * SLOT_BYTES;
  for (u32 i = job.first; i < job.first + job.count; i++) {
    const Extent& extent = transfer.extents[i];
    if (Status status = stopped(job, *extent.grant); !status.ok()) return status;
    u8* const to = transfer.write ? slot : extent.local;
    const u8* const from = transfer.write ? extent.local : slot;
    if (transfer.verify) {
      job.ours = copyCrc64(to, from, extent.length, job.ours, store);
    } else {
      copyBytes(to, from, extent.length, store);
    }
    slot += extent.length;
  }
  return {};
}

bool ShmLink::connected() const {
  pollfd end{channel_.fd(), 0, 0};
  return ::poll(&end, 1, 0) <= 0;
}

Status ShmLink::compare(const Job& job) const {
  return !job.transfer->verify || job.ours == job.theirs ? Status() : changed(job.bytes);
}

void ShmLink::finish(Job& job, Status status) {
  Transfer& transfer = *job.transfer;
  if (!status.ok()) transfer.fail(std::move(status));
  release(transfer);
}

void ShmLink::release(Transfer& transfer) {
  if (transfer.remaining.fetch_sub(1) == 1) complete(transfer);
}

void ShmLink::complete(Transfer& transfer) {
  Slice& slice = transfer.slice;
  Status status = transfer.takeStatus();
  const bool verified = status.ok() && transfer.verify;
  {
    const std::lock_guard lock(mutex_);
    transfers_.erase(&transfer);
  }
  delete &transfer;
  events_.settled(slice, std::move(status), verified);
  leave();
}

void ShmLink::acquireSlot(Job& job) {
  if (state_ == LinkState::down) return finish(job, failure());
  if (!ring_) {
    Fd descriptor;
    Expected<Mapping> ring = Mapping::create(u64{SLOTS} * SLOT_BYTES, descriptor);
    if (!ring.ok()) return finish(job, std::move(ring.status));
    ring_ = std::move(ring.value);
    for (u32 slot = SLOTS; slot > 0; slot--) freeSlots_.push_back(slot - 1);
    Message message;
    message.type = MessageType::ring;
    message.ring = {SLOTS, SLOT_BYTES};
    send(message, std::move(descriptor));
    if (state_ == LinkState::down) return finish(job, failure());
  }
  if (freeSlots_.empty()) {
    slotless_.push_back(&job);
    return;
  }
  job.slot = freeSlots_.back();
  job.hasSlot = true;
  freeSlots_.pop_back();
  job.transfer->write ? submit(job) : request(job);
}

void ShmLink::releaseSlot(u32 slot) {
  if (slot == NO_SLOT) return;
  freeSlots_.push_back(slot);
  if (slotless_.empty()) return;
  Job* const job = slotless_.front();
  slotless_.pop_front();
  acquireSlot(*job);
}

void ShmLink::request(Job& job) {
  const Transfer& transfer = *job.transfer;
  if (state_ == LinkState::down) return finish(job, failure());
  if (transfer.cancelled) {
    releaseSlot(job.slot);
    return finish(job, {Code::aborted, "the batch was cancelled"});
  }
  Message message;
  message.type = MessageType::stage;
  message.token = job.token = nextNumber_++;
  message.work = {job.slot, (transfer.write ? WORK_WRITE : 0) | (transfer.verify ? WORK_SUM : 0) |
                                (storeFor(transfer) == Store::streaming ? WORK_STREAM : 0)};
  message.pieces.reserve(job.count);
  for (u32 i = job.first; i < job.first + job.count; i++) {
    const Extent& extent = transfer.extents[i];
    message.pieces.push_back({extent.grant->segment, 0, extent.offset, extent.length});
  }
  pending_.emplace(job.token, &job);
  await();
  // May fail the link, and with it this job.
  send(message);
}

void ShmLink::answered(const Message& message) {
  const auto found = pending_.find(message.token);
  if (found == pending_.end()) {
    const auto orphan = orphans_.find(message.token);
    if (orphan == orphans_.end()) return;
    const u32 slot = orphan->second;
    orphans_.erase(orphan);
    return releaseSlot(slot);
  }
  Job& job = *found->second;
  pending_.erase(found);
  job.theirs = message.crc;
  Status status;
  if (message.code != Code::ok) {
    status = {message.code, "the peer does not grant that memory: segment " +
                                std::to_string(job.transfer->extents[job.first].grant->segment) + " or one beside it"};
  } else if (!job.transfer->write) {
    return submit(job);
  } else {
    status = compare(job);
  }
  const u32 slot = job.hasSlot ? job.slot : NO_SLOT;
  finish(job, std::move(status));
  releaseSlot(slot);
}

void ShmLink::sweep() {
  const Status aborted(Code::aborted, "the batch was cancelled");
  for (auto at = pending_.begin(); at != pending_.end();) {
    Job& job = *at->second;
    // The owner may be about to write: then it is over when the owner says so, or the connection ends.
    if (!job.transfer->cancelled || (job.reach == Reach::staged && job.transfer->write)) {
      ++at;
      continue;
    }
    // The owner may still use the slot.
    orphans_.emplace(at->first, job.hasSlot ? job.slot : NO_SLOT);
    at = pending_.erase(at);
    finish(job, aborted);
  }
  for (auto at = slotless_.begin(); at != slotless_.end();) {
    Job& job = **at;
    if (!job.transfer->cancelled) {
      ++at;
      continue;
    }
    at = slotless_.erase(at);
    finish(job, aborted);
  }
  if (state_ == LinkState::up) return unpark();
  for (auto at = parked_.begin(); at != parked_.end();) {
    Transfer& transfer = **at;
    if (!transfer.cancelled) {
      ++at;
      continue;
    }
    at = parked_.erase(at);
    transfer.fail(aborted);
    complete(transfer);
  }
}

void ShmLink::forgetVm() {
  std::vector<std::shared_ptr<Grant>> dropped;
  const std::unique_lock lock(grantsMutex_);
  for (auto at = grants_.begin(); at != grants_.end();) {
    if (at->second->reach == Reach::vm) {
      dropped.push_back(std::move(at->second));
      at = grants_.erase(at);
    } else {
      ++at;
    }
  }
}

}  // namespace mooncake::shm
