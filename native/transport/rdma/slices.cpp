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

void Path::settle(Settling& settling) {
  if (settling.first.slice == nullptr) return;
  events_.settled(*settling.first.slice, std::move(settling.first.status), settling.first.verified);
  for (Settling::Item& item : settling.more) events_.settled(*item.slice, std::move(item.status), item.verified);
}

void Path::post(Slice& slice) {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::up || closing_) {
      settling.add(&slice, closing_ ? Status(Code::closed, "the link is closed") : lost());
    } else {
      waiting_.push_back(&slice);
      startWaiting(settling);
    }
  }
  settle(settling);
}

void Path::startWaiting(Settling& settling) {
  while (!waiting_.empty() && state_ == State::up) {
    Slice& slice = *waiting_.front();
    Status refusal;
    u32 missing = 0;
    switch (begin(slice, refusal, missing)) {
      case Begun::full: return;
      case Begun::posted: waiting_.pop_front(); break;
      case Begun::unregistered:
        waiting_.pop_front();
        park(slice, missing);
        break;
      case Begun::refused:
        waiting_.pop_front();
        settling.add(&slice, std::move(refusal));
        break;
    }
    // The device does not take requests any more.
    if (!failure_.ok() && state_ == State::up) breakUp(Status(failure_), settling);
  }
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
  const Begun begun = postPieces(slice, op, index, refusal, missing);
  if (begun != Begun::posted) {
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

Path::Begun Path::postPieces(Slice& slice, Op& op, u32 index, Status& refusal, u32& missing) {
  constexpr u32 MOST = MessageChannel::MAX_RECORDS;
  std::array<ibv_send_wr, MOST> requests;
  std::array<ibv_sge, MOST> places;
  const bool write = slice.batch->op() == mooncake::Op::write;
  const u32 inlineBytes = endpoint_->pair(op.pair).limits().inlineBytes;
  const u64 ordinary = endpoint_->number({Work::Kind::data, index});
  u32 count = 0;
  Begun outcome = Begun::posted;
  slice.forEach([&](const Piece& piece) {
    if (outcome != Begun::posted) return;
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
    ibv_sge& place = places[count];
    place = {reinterpret_cast<u64>(piece.address), static_cast<u32>(piece.length), localKeyOf};
    ibv_send_wr& request = requests[count];
    request.wr_id = ordinary;
    request.next = &request + 1;
    request.sg_list = &place;
    request.num_sge = 1;
    request.opcode = write ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ;
    request.send_flags = write && piece.length <= inlineBytes ? unsigned{IBV_SEND_INLINE} : 0;
    request.wr.rdma.remote_addr = remoteAddress + piece.remoteOffset;
    request.wr.rdma.rkey = remoteKeyOf;
    count++;
  });
  if (outcome != Begun::posted) return outcome;
  ibv_send_wr& last = requests[count - 1];
  last.next = nullptr;
  last.wr_id = endpoint_->number({Work::Kind::last, index});
  last.send_flags |= IBV_SEND_SIGNALED;
  ibv_send_wr* bad = nullptr;
  const int error = endpoint_->pair(op.pair).post(requests.data(), &bad);
  if (error == 0) return Begun::posted;
  failure_ = systemError(device_->name() + ": ibv_post_send", error, Code::peer);
  refusal = failure_;
  // Those before the bad one are under way: the slice is settled when the queue pair is gone.
  return bad == requests.data() ? Begun::refused : Begun::posted;
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
    refusal = {Code::notSupported, "segment " + std::to_string(segment.id) + " is not registered with " + device_->name() + ": " +
                                       local_.region->refusals};
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
    remote_ = {segment, version, found.address, (*found.keys)[settings_.remoteIndex]};
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
  settle(settling);
}

void Path::completed(u32 number, const ibv_wc& completion) {
  const Work work = Work::of(number);
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    if (!endpoint_) return;
    if (work.kind == Work::Kind::message) {
      if (completion.status != IBV_WC_SUCCESS) {
        breakUp({Code::peer, settings_.localNic + " to " + settings_.remoteNic + ": " + statusText(completion.status)}, settling);
      } else {
        if (work.index < MessageChannel::SLOTS) handle(endpoint_->messages()->received(work.index, completion.byte_len), settling);
        endpoint_->messages()->release(work.index);
      }
    } else {
      Op& op = ops_[work.index];
      if (completion.status != IBV_WC_SUCCESS) {
        if (op.result == IBV_WC_SUCCESS) op.result = completion.status;
        breakUp({Code::peer, settings_.localNic + " to " + settings_.remoteNic + ": " + statusText(completion.status)}, settling);
      }
      if (work.kind == Work::Kind::last) moved(work.index, settling);
    }
    if (state_ == State::up) startWaiting(settling);
    else if (state_ == State::draining && drained()) takeDown(settling);
  }
  settle(settling);
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
    if (op.slice->batch->verify() && settings_.own) {
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
  settle(settling);
}

void Path::finish(u32 index, Settling& settling) {
  Op& op = ops_[index];
  if (op.moving || op.summing || op.asking) return;
  const bool verify = op.slice->batch->verify() && settings_.own;
  Status status;
  if (op.result != IBV_WC_SUCCESS) {
    status = lost();
  } else if (op.code != Code::ok) {
    status = {op.code, settings_.remoteNic + " cannot sum what was moved"};
  } else if (verify && op.localSum != op.remoteSum) {
    status = {Code::corrupt, std::to_string(op.slice->bytes) + " bytes over " + settings_.localNic + " are not what " + settings_.remoteNic + " has"};
  }
  const bool verified = verify && status.ok();
  settling.add(op.slice, std::move(status), verified);
  op.slice = nullptr;
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
  settle(settling);
}

}  // namespace mooncake::rdma
