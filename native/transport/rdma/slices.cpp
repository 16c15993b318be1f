// Slices of a path: from pieces to work requests, and from completions to what the engine is told.
#include "checksum/crc64.h"
#include "engine/peer.h"
#include "transport/copy_pool.h"
#include "transport/rdma/path.h"

#include <algorithm>
#include <array>
#include <cerrno>

namespace mooncake::rdma {

/** A segment that a copy thread registers. */
struct Path::Registration {
  std::shared_ptr<Path> path;
  u32 segment;

  static void run(void*, void* item) {
    const std::unique_ptr<Registration> self(static_cast<Registration*>(item));
    self->path->registered(self->segment, self->path->regions_->add(self->segment).status);
  }
};

/** Our side's sum of a slice, made by a copy thread. */
struct Path::Summation {
  std::shared_ptr<Path> path;
  Slice* slice;
  u32 index;

  static void run(void*, void* item) {
    const std::unique_ptr<Summation> self(static_cast<Summation*>(item));
    u64 sum = 0;
    self->slice->forEach([&](const Piece& piece) { sum = crc64(piece.address, piece.length, sum); });
    self->path->summed(self->index, sum);
  }
};

namespace {

/** Of a request, not of the path: the memory that it names, here or there. */
bool ownFault(ibv_wc_status status) {
  return status == IBV_WC_REM_ACCESS_ERR || status == IBV_WC_LOC_PROT_ERR || status == IBV_WC_LOC_ACCESS_ERR;
}

}  // namespace

void Path::post(std::span<Slice* const> slices) {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::up || closing_) {
      const Status why = closing_ ? Status(Code::closed, "the link is closed") : lost();
      for (Slice* const slice : slices) {
        if (goesOn(*slice)) waiting_.push_back(slice);
        else settling.add(slice, why);
      }
    } else {
      size_t begun = 0;
      if (waiting_.empty()) {
        while (begun < slices.size() && start(*slices[begun], settling)) begun++;
      }
      waiting_.insert(waiting_.end(), slices.begin() + static_cast<std::ptrdiff_t>(begun), slices.end());
      send(settling);
    }
  }
  settling.tell(events_);
}

void Path::startWaiting(Settling& settling) {
  if (state_ != State::up) return;
  while (!waiting_.empty() && start(*waiting_.front(), settling)) waiting_.pop_front();
  send(settling);
}

bool Path::start(Slice& slice, Settling& settling) {
  Status refusal;
  u32 missing = 0;
  switch (begin(slice, refusal, missing)) {
    case Begun::full: return false;
    case Begun::chained: break;
    case Begun::unregistered: park(slice, missing); break;
    case Begun::refused: settling.add(&slice, std::move(refusal)); break;
  }
  return true;
}

Path::Begun Path::begin(Slice& slice, Status& refusal, u32& missing) {
  if (freeOps_.empty()) return Begun::full;
  u32 pair = nextPair_++ % settings_.pairs;
  for (u32 i = 0; i < settings_.pairs; i++) {
    if (use_[i].requests < use_[pair].requests) pair = i;
  }
  if (use_[pair].requests + slice.count > settings_.limits.depth) return Begun::full;
  if (!device_->completions().reserve(slice.count)) return Begun::full;
  const u32 index = freeOps_.back();
  Op& op = ops_[index];
  op.pair = static_cast<u16>(pair);
  const Begun begun = chainPieces(slice, op, index, refusal, missing);
  if (begun != Begun::chained) {
    device_->completions().release(slice.count);
    return begun;
  }
  freeOps_.pop_back();
  op.slice = &slice;
  op.requests = slice.count;
  op.moving = true;
  op.result = IBV_WC_SUCCESS;
  op.code = Code::ok;
  underWay_++;
  PairUse& use = use_[pair];
  if (use.requests == 0) use.progress = device_->completions().now();
  use.requests += slice.count;
  return begun;
}

Path::Begun Path::chainPieces(Slice& slice, Op& op, u32 index, Status& refusal, u32& missing) {
  Chain& chain = chains_[op.pair];
  const u32 before = chain.size();
  const bool write = slice.batch->op() == mooncake::Op::write;
  const u32 inlineBytes = endpoint_->pair(op.pair).limits().inlineBytes;
  const u64 ordinary = endpoint_->number({Work::Kind::data, index});
  Begun outcome = Begun::chained;
  slice.forEach([&](const Piece& piece) {
    if (outcome != Begun::chained) return;
    u32 localKeyOf = 0;
    u64 remoteAddress = 0;
    u32 remoteKeyOf = 0;
    if (!localKey(*piece.local, localKeyOf, missing, refusal)) {
      outcome = missing != 0 ? Begun::unregistered : Begun::refused;
      return;
    }
    if (!remoteKey(piece.remote, remoteAddress, remoteKeyOf, refusal)) {
      outcome = Begun::refused;
      return;
    }
    ibv_send_wr& request = chain.add({addressOf(*piece.local) + piece.localOffset, static_cast<u32>(piece.length), localKeyOf});
    request.wr_id = ordinary;
    request.opcode = write ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ;
    request.send_flags = write && piece.length <= inlineBytes ? unsigned{IBV_SEND_INLINE} : 0;
    request.wr.rdma.remote_addr = remoteAddress + piece.remoteOffset;
    request.wr.rdma.rkey = remoteKeyOf;
  });
  if (outcome != Begun::chained) {
    chain.cut(before);
    return outcome;
  }
  ibv_send_wr& last = chain.last();
  last.wr_id = endpoint_->number({Work::Kind::last, index});
  last.send_flags |= IBV_SEND_SIGNALED;
  return outcome;
}

void Path::send(Settling& settling) {
  Status failure;
  for (u32 pair = 0; pair < chains_.size(); pair++) {
    Chain& chain = chains_[pair];
    ibv_send_wr* const first = chain.close();
    if (first == nullptr) continue;
    ibv_send_wr* bad = nullptr;
    if (const int error = endpoint_->pair(pair).post(first, &bad); error != 0) {
      failure = systemError(device_->name() + ": ibv_post_send", error, Code::peer);
      refuse(chain.requests(), bad == nullptr ? chain.size() : static_cast<u32>(bad - first), failure, settling);
    }
    chain.cut(0);
  }
  if (!failure.ok()) breakUp(std::move(failure), settling);
}

/** What the device did not take, from request `sent` on. Of a slice of which it took a part, that part is under way: it is settled
    when the queue pair is gone. */
void Path::refuse(std::span<const ibv_send_wr> requests, u32 sent, const Status& why, Settling& settling) {
  const auto indexAt = [&](size_t at) { return Work::of(static_cast<u32>(requests[at].wr_id)).index; };
  size_t at = sent;
  while (at > 0 && at < requests.size() && indexAt(at) == indexAt(at - 1)) at++;
  while (at < requests.size()) {
    const u32 index = indexAt(at);
    Op& op = ops_[index];
    at += op.requests;
    use_[op.pair].requests -= op.requests;
    device_->completions().release(op.requests);
    op.moving = false;
    settling.add(op.slice, why);
    forget(index);
  }
}

bool Path::localKey(const Segment& segment, u32& key, u32& missing, Status& refusal) {
  if (local_.id != segment.id || local_.region == nullptr) {
    local_ = {segment.id, regions_->find(segment.id)};
    if (local_.region == nullptr) {
      missing = segment.id;
      return false;
    }
  }
  const Region::Key& found = local_.region->keys[settings_.localIndex];
  if (found.handle == nullptr) {
    refusal = {Code::notSupported, "segment " + std::to_string(segment.id) + " is not registered with " + found.refusal};
    return false;
  }
  key = found.local;
  return true;
}

bool Path::remoteKey(u32 segment, u64& address, u32& key, Status& refusal) {
  const u64 version = peer_.version();
  if (remote_.id != segment || remote_.version != version || remote_.address == 0) {
    RemoteSegment found;
    const bool known = peer_.segment(segment, found);
    if (!known || !found.keys || settings_.remoteIndex >= found.keys->size()) {
      refusal = {Code::notSupported, settings_.remoteNic + " has announced no key for segment " + std::to_string(segment)};
      return false;
    }
    const u32 announced = (*found.keys)[settings_.remoteIndex];
    // Mooncake's engines announce the keys that their NICs gave; ours 0 where a NIC did not take the memory.
    if (announced == 0) {
      refusal = {Code::notSupported, settings_.remoteNic + " did not take segment " + std::to_string(segment)};
      return false;
    }
    remote_ = {segment, version, found.address, announced};
  }
  address = remote_.address;
  key = remote_.key;
  return true;
}

void Path::park(Slice& slice, u32 segment) {
  parked_.emplace_back(segment, &slice);
  if (std::find(registering_.begin(), registering_.end(), segment) != registering_.end()) return;
  registering_.push_back(segment);
  // Registering blocks: not here, where a caller of the engine may be.
  device_->completions().post([self = shared_from_this(), segment] {
    auto* const registration = new Registration{self, segment};
    if (!self->context_.copies.submit({Registration::run, nullptr, registration})) Registration::run(nullptr, registration);
  });
}

void Path::registered(u32 segment, const Status& status) {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    std::erase(registering_, segment);
    std::erase_if(parked_, [&](const auto& parked) {
      if (parked.first != segment) return false;
      if (status.ok()) waiting_.push_back(parked.second);
      else settling.add(parked.second, {status.code == Code::segment ? Code::segment : Code::notSupported, status.detail});
      return true;
    });
    startWaiting(settling);
  }
  settling.tell(events_);
}

void Path::completed(std::span<const ibv_wc> completions) {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    if (!endpoint_) return;
    for (const ibv_wc& completion : completions) completed(completion, settling);
    startWaiting(settling);
    if (state_ == State::draining && drained()) takeDown(settling);
  }
  settling.tell(events_);
}

void Path::completed(const ibv_wc& completion, Settling& settling) {
  const Work work = Work::of(static_cast<u32>(completion.wr_id));
  const bool good = completion.status == IBV_WC_SUCCESS;
  if (!good && work.kind != Work::Kind::message) {
    Op& op = ops_[work.index];
    if (op.result == IBV_WC_SUCCESS) op.result = completion.status;
    if (op.slice != nullptr && ownFault(completion.status)) blame(op, settling);
  }
  if (!good) breakUp(broken(completion.status), settling);
  if (work.kind == Work::Kind::last) return moved(work.index, settling);
  if (work.kind == Work::Kind::data || !good) return;
  if (work.index < MessageChannel::SLOTS) handle(endpoint_->messages()->received(work.index, completion.byte_len), settling);
  endpoint_->messages()->release(work.index);
}

void Path::moved(u32 index, Settling& settling) {
  Op& op = ops_[index];
  PairUse& use = use_[op.pair];
  use.requests -= op.requests;
  use.progress = device_->completions().now();
  device_->completions().release(op.requests);
  op.moving = false;
  if (op.result == IBV_WC_SUCCESS) {
    failures_ = 0;
    carried_ = true;
    if (verifies(*op.slice)) {
      if (state_ == State::up) {
        op.summing = op.asking = true;
        if (unanswered_ < MessageChannel::SLOTS / 2) ask(index);
        else unasked_.push_back(index);
        auto* const work = new Summation{shared_from_this(), op.slice, index};
        device_->completions().post([work, &copies = context_.copies] {
          if (!copies.submit({Summation::run, nullptr, work})) Summation::run(nullptr, work);
        });
      } else {
        op.result = IBV_WC_WR_FLUSH_ERR;
      }
    }
  }
  finish(index, settling);
}

void Path::ask(u32 index) {
  const Slice& slice = *ops_[index].slice;
  std::array<SumRecord, MessageChannel::MAX_RECORDS> records;
  u16 count = 0;
  slice.forEach([&](const Piece& piece) { records[count++] = {piece.remote, 0, piece.remoteOffset, piece.length}; });
  if (unanswered_++ == 0) answered_ = device_->completions().now();
  // There is a slot for each question that may be unanswered; where the device takes none, the connection breaks by itself.
  endpoint_->messages()->send({MessageType::request, Code::ok, count, index},
                              {reinterpret_cast<const u8*>(records.data()), count * sizeof(SumRecord)});
}

void Path::summed(u32 index, u64 sum) {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    Op& op = ops_[index];
    op.summing = false;
    op.localSum = sum;
    finish(index, settling);
  }
  settling.tell(events_);
}

void Path::finish(u32 index, Settling& settling) {
  Op& op = ops_[index];
  if (op.moving || op.summing || op.asking) return;
  // The peer's processor may not reach its side; ours may not either.
  const bool verify = verifies(*op.slice) && op.code != Code::notSupported;
  Status status;
  if (op.result != IBV_WC_SUCCESS && goesOn(*op.slice)) {
    waiting_.push_back(op.slice);
    return forget(index);
  }
  if (op.result != IBV_WC_SUCCESS) {
    const u64 number = op.slice->batch->number();
    const bool guilty = std::find(guilty_.begin(), guilty_.end(), number) != guilty_.end();
    status = guilty ? Status(Code::segment, failure_.detail) : lost();
  } else if (op.code != Code::ok && op.code != Code::notSupported) {
    status = {op.code, settings_.remoteNic + " cannot sum what was moved"};
  } else if (verify && op.localSum != op.remoteSum) {
    status = {Code::corrupt, std::to_string(op.slice->bytes) + " bytes over " + settings_.localNic + " are not what " + settings_.remoteNic + " has"};
  }
  const bool verified = verify && status.ok();
  settling.add(op.slice, std::move(status), verified);
  forget(index);
}

void Path::forget(u32 index) {
  ops_[index].slice = nullptr;
  freeOps_.push_back(index);
  underWay_--;
}

void Path::abandonWaiting(const Status& why, Settling& settling, const Batch* batch) {
  const auto gone = [&](Slice* slice) {
    if (batch != nullptr && slice->batch != batch) return false;
    settling.add(slice, why);
    return true;
  };
  std::erase_if(waiting_, gone);
  std::erase_if(parked_, [&](const auto& parked) { return gone(parked.second); });
}

void Path::cancel(Batch& batch) {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    abandonWaiting({Code::aborted, "the batch was given up"}, settling, &batch);
    const bool underWay = std::any_of(ops_.begin(), ops_.end(), [&](const Op& op) { return op.slice != nullptr && op.slice->batch == &batch; });
    const bool known = std::any_of(cancelled_.begin(), cancelled_.end(), [&](const auto& each) { return each.first == batch.number(); });
    // What the NIC has cannot be taken back alone: it mostly ends by itself.
    if (underWay && !known) cancelled_.emplace_back(batch.number(), Clock::now());
  }
  settling.tell(events_);
}

}  // namespace mooncake::rdma
