#include "transport/tcp/stock_stream.h"

#include "transport/tcp/pulse.h"

#include <cerrno>

namespace mooncake::tcp {

namespace {

constexpr u64 TURN_BYTES = 2 << 20;
/** How long a port of a stock peer may refuse connections: time enough to start it again. */
constexpr u64 REFUSED_MS = 5000;

}  // namespace

StockStream::StockStream(StreamContext context, const Peer& peer, bool status)
    : Stream(std::move(context), REFUSED_MS), peer_(peer), status_(status) {}

void StockStream::connected(Lock& lock) {
  rise();
  const bool waiting = !queue_.empty();
  lock.unlock();
  if (waiting) work();
  lock.lock();
}

void StockStream::post(Slice& slice) {
  {
    Lock lock(mutex_);
    if (phase_ != Phase::up || failing()) {
      const Status status = notUp();
      lock.unlock();
      return events().settled(slice, status, false);
    }
    queue_.push_back(&slice);
    if (std::exchange(working_, true)) return;
  }
  workLater();
}

void StockStream::cancel(Batch& batch) {
  Settlements done;
  bool under = false;
  {
    const Lock lock(mutex_);
    std::erase_if(queue_, [&](Slice* slice) {
      if (slice->batch != &batch) return false;
      done.add(*slice, {Code::aborted, "given up"});
      return true;
    });
    under = current_ != nullptr && current_->batch == &batch;
  }
  done.deliver(events());
  if (!under) return;
  // By number: when the loop gets to it, another batch may lie where this one was.
  loop().run([self = shared_from_this(), number = batch.number()] {
    StockStream& stream = static_cast<StockStream&>(*self);
    {
      const Lock lock(stream.mutex_);
      if (stream.current_ == nullptr || stream.current_->batch->number() != number) return;
    }
    stream.breakOff({Code::aborted, "given up"});
  });
}

void StockStream::readable() {
  if (step_ == Step::none) {
    // Nothing is due: this is its end.
    const Filled filled = input_.fill(fd_.get(), nullptr);
    if (filled != Filled::later) fail({Code::peer, place() + " closed the connection"});
    return;
  }
  work();
}

void StockStream::writable() { work(); }

void StockStream::work() {
  Status status;
  bool waiting = false;
  for (u64 turn = 0; turn < TURN_BYTES && !waiting; turn += Input::CAPACITY) {
    if (step_ == Step::none && !next()) {
      waiting = true;
    } else if (step_ == Step::sending) {
      status = send();
      waiting = !status.ok() || step_ == Step::sending;
    } else {
      status = receive();
      waiting = !status.ok() || !arrived_;
    }
  }
  if (status.ok()) {
    const Lock lock(mutex_);
    if (!fd_ || failing()) return;
    wantToWrite(step_ == Step::sending);
    // The turn is used up, and no event will come for what has not begun.
    if (!waiting && !std::exchange(working_, true)) workLater();
    return;
  }
  if (status.code == Code::segment) return breakOff(std::move(status));
  fail(std::move(status));
}

void StockStream::workLater() {
  loop().run([self = shared_from_this()] {
    StockStream& stream = static_cast<StockStream&>(*self);
    {
      const Lock lock(stream.mutex_);
      stream.working_ = false;
      if (stream.phase_ != Phase::up || stream.failing()) return;
    }
    stream.work();
  });
}

bool StockStream::next() {
  for (;;) {
    {
      const Lock lock(mutex_);
      if (current_ == nullptr) {
        if (queue_.empty()) return false;
        current_ = queue_.front();
        queue_.pop_front();
        parts_.clear();
        part_ = 0;
      }
    }
    if (parts_.empty()) {
      if (Status status = prepare(*current_); !status.ok()) {
        settle(std::move(status));
        continue;
      }
    }
    begin();
    return true;
  }
}

Status StockStream::prepare(const Slice& slice) {
  const bool write = slice.batch->op() == Op::write;
  u32 last = 0;
  Status status;
  RemoteSegment remote;
  slice.forEach([&](const Piece& piece) {
    if (!status.ok()) return;
    if (piece.address == nullptr) {
      status = {Code::notSupported, "TCP moves memory, not files"};
    } else if ((parts_.empty() || last != piece.remote) && !peer_.segment(piece.remote, remote)) {
      status = {Code::segment, "the peer has no segment " + std::to_string(piece.remote)};
    }
    if (!status.ok()) return;
    const u64 address = remote.address + piece.remoteOffset;
    Part* const before = parts_.empty() ? nullptr : &parts_.back();
    if (before == nullptr || last != piece.remote || before->request.address + before->request.size != address) {
      parts_.push_back({{0, address, write, status_}, {}});
    }
    last = piece.remote;
    Part& part = parts_.back();
    part.request.size += piece.length;
    part.memory.push_back({piece.address, piece.length});
  });
  if (status.ok() && write && !status_) {
    // Version 1 acknowledges no write, but serves in order: once a read of the last byte is answered, all bytes are there.
    const StockRequest& end = parts_.back().request;
    parts_.push_back({{1, end.address + end.size - 1, false, false}, {{&confirmation_, 1}}});
  }
  return status;
}

void StockStream::begin() {
  Part& part = parts_[part_];
  Item item;
  item.head.resize(STOCK_REQUEST_BYTES);
  writeStockRequest(item.head.data(), part.request);
  target_.clear();
  for (const iovec& memory : part.memory) {
    u8* const address = static_cast<u8*>(memory.iov_base);
    if (part.request.write) {
      item.add(address, memory.iov_len);
    } else {
      target_.add(address, memory.iov_len);
    }
  }
  target_.begin(part.request.write ? 0 : part.request.size, false);
  output_.push(std::move(item));
  step_ = Step::sending;
  progress_ = loop().now();
}

Status StockStream::send() {
  const u64 before = output_.sentBytes();
  const Output::Flushed flushed = output_.flush(fd_.get(), TURN_BYTES, [](const Item&) {});
  if (output_.sentBytes() != before) progress_ = loop().now();
  if (flushed == Output::Flushed::failed) return systemError(place(), errno, Code::peer);
  if (flushed != Output::Flushed::all) return {};
  const StockRequest& request = parts_[part_].request;
  if (request.status) {
    step_ = Step::status;
  } else if (request.write) {
    // Version 1 says nothing more; the slice's last part asks.
    complete();
  } else {
    step_ = Step::data;
  }
  return {};
}

Status StockStream::receive() {
  const Filled filled = input_.fill(fd_.get(), step_ == Step::data ? &target_ : nullptr);
  arrived_ = filled == Filled::some;
  if (filled == Filled::ended) return {Code::peer, place() + " closed the connection"};
  if (filled == Filled::failed) return systemError(place(), errno, Code::peer);
  if (arrived_) progress_ = loop().now();
  if (step_ == Step::status) {
    input_.expect(STOCK_STATUS_BYTES);
    if (input_.pending() < STOCK_STATUS_BYTES) return {};
    StockStatus word;
    if (!readStockStatus(input_.peek(), word)) return {Code::peer, place() + " sent something else than a status"};
    input_.skip(STOCK_STATUS_BYTES);
    if (word == StockStatus::rejected) return {Code::segment, place() + " rejected the range"};
    step_ = Step::data;
  }
  input_.drain(target_);
  if (target_.left() == 0) complete();
  return {};
}

void StockStream::complete() {
  step_ = Step::none;
  if (++part_ == parts_.size()) settle({});
}

void StockStream::settle(Status status) {
  step_ = Step::none;
  Slice* slice;
  {
    const Lock lock(mutex_);
    slice = std::exchange(current_, nullptr);
    parts_.clear();
  }
  if (slice != nullptr) events().settled(*slice, std::move(status), false);
}

void StockStream::breakOff(Status why) {
  {
    const Lock lock(mutex_);
    keepQueue_ = true;
    interrupted_ = std::move(why);
  }
  fail({Code::peer, "the connection to " + place() + " was broken off"});
}

void StockStream::abandon(const Status& why, Settlements& done) {
  if (current_ != nullptr) done.add(*current_, keepQueue_ ? interrupted_ : why);
  current_ = nullptr;
  if (!keepQueue_) {
    for (Slice* const slice : queue_) done.add(*slice, why);
    queue_.clear();
  }
  keepQueue_ = false;
  parts_.clear();
  part_ = 0;
  step_ = Step::none;
  input_ = Input();
  output_.clear();
  target_.clear();
}

bool StockStream::watch(u64 now) {
  if (step_ != Step::none && now - progress_ >= STOCK_SILENCE_MS) {
    fail({Code::peer, place() + " has not answered for " + std::to_string(STOCK_SILENCE_MS / 1000) + " s"});
  }
  return step_ != Step::none;
}

}  // namespace mooncake::tcp
