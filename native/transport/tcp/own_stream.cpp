#include "transport/tcp/own_stream.h"

#include "checksum/crc64.h"
#include "transport/tcp/pulse.h"

namespace mooncake::tcp {

namespace {

/** What a posting thread sends itself; more is the loop's work. */
constexpr u64 INLINE_BYTES = 64 << 10;
constexpr u64 TURN_BYTES = 2 << 20;
/** How long a port of a peer of ours may refuse connections. What listens there later is another run. */
constexpr u64 REFUSED_MS = 1000;
/** How long the peer may take to answer a write that was given up. */
constexpr auto GIVE_UP = std::chrono::milliseconds(500);

/** Why the peer refused, for people. */
std::string refusal(Code code) {
  switch (code) {
    case Code::segment: return "it has no such segment, or the range leaves it, or it is not to be written";
    case Code::corrupt: return "what it received differs from what was sent";
    case Code::notSupported: return "the segment has no memory";
    case Code::ok:
    case Code::invalidArgument:
    case Code::peer:
    case Code::timeout:
    case Code::aborted:
    case Code::closed:
    case Code::protocol:
    case Code::queueFull:
    case Code::outOfMemory:
    case Code::system: return "code " + std::to_string(static_cast<int>(code));
  }
  return {};
}

Status wrong(const char* what) { return {Code::protocol, what}; }

}  // namespace

OwnStream::OwnStream(StreamContext context, u64 expected, u64 generation, u32 number, std::shared_ptr<Fences> fences)
    : Stream(std::move(context), REFUSED_MS),
      expected_(expected),
      generation_(generation),
      number_(number),
      fences_(std::move(fences)) {}

void OwnStream::connected(Lock& lock) {
  heard_ = said_ = loop().now();
  fenceVersion_ = 0;
  fencesSent_.clear();
  Item item;
  item.head.resize(HELLO_BYTES);
  writeHello(item.head.data(), {VERSION, expected_, generation_, number_, ++connection_});
  output_.push(std::move(item));
  Settlements done;
  send(lock, done);
}

void OwnStream::post(Slice& slice) {
  const bool write = slice.batch->op() == Op::write;
  auto request = std::make_unique<Request>();
  request->slice = &slice;
  request->write = write;
  request->verify = slice.batch->verify();
  Item item;
  item.head.resize(FRAME_BYTES + slice.count * RECORD_BYTES);
  u8* record = item.head.data() + FRAME_BYTES;
  bool memory = true;
  slice.forEach([&](const Piece& piece) {
    memory = memory && piece.address != nullptr;
    writeRecord(record, {piece.remote, piece.remoteOffset, piece.length});
    record += RECORD_BYTES;
    if (!memory) return;
    if (write) {
      item.add(piece.address, piece.length);
    } else {
      request->target.add(piece.address, piece.length);
    }
  });
  if (!memory) return events().settled(slice, {Code::notSupported, "TCP moves memory, not files"}, false);
  request->target.begin(write ? 0 : slice.bytes, request->verify);
  Frame frame{write ? FrameType::write : FrameType::read, request->verify, Code::ok, 0, slice.count, slice.bytes};
  frame.sum = crc64(item.head.data() + FRAME_BYTES, item.head.size() - FRAME_BYTES, 0);
  item.summed = write && request->verify;
  item.tailed = write;

  Settlements done;
  {
    Lock lock(mutex_);
    if (phase_ != Phase::up || failing()) {
      const Status status = notUp();
      lock.unlock();
      return events().settled(slice, status, false);
    }
    do {
      frame.id = ++lastId_;
    } while (frame.id == 0 || requests_.count(frame.id) != 0);
    writeFrame(item.head.data(), frame);
    item.request = frame.id;
    item.tail = {FrameType::end, false, Code::ok, frame.id};
    requests_.emplace(frame.id, std::move(request));
    const bool idle = !sending_ && output_.empty();
    queueFences();
    queue(std::move(item));
    if (!idle) return;
    if (write && slice.bytes > INLINE_BYTES) {
      kick();
    } else {
      send(lock, done);
    }
  }
  done.deliver(events());
}

void OwnStream::queue(Item item) {
  if (sending_) {
    pending_.push_back(std::move(item));
  } else {
    output_.push(std::move(item));
  }
}

void OwnStream::queueFences() {
  const u64 version = fences_->version();
  if (version == fenceVersion_) return;
  fenceVersion_ = version;
  const Fences::Ended ended = fences_->list();
  for (const auto& [stream, connection] : ended) {
    const auto sent = fencesSent_.find(stream);
    // This stream's own earlier connections have ended with its hello.
    if (stream == number_ || (sent != fencesSent_.end() && sent->second == connection)) continue;
    Item item;
    item.head.resize(FRAME_BYTES);
    writeFrame(item.head.data(), {FrameType::fence, false, Code::ok, stream, 0, connection});
    queue(std::move(item));
  }
  fencesSent_ = ended;
}

void OwnStream::kick() {
  if (kicked_) return;
  kicked_ = true;
  loop().run([self = shared_from_this()] { static_cast<OwnStream&>(*self).writable(); });
}

void OwnStream::send(Lock& lock, Settlements& done) {
  sending_ = true;
  const int fd = fd_.get();
  lock.unlock();
  std::vector<u32> gone;
  const u64 before = output_.sentBytes();
  const Output::Flushed flushed = output_.flush(fd, TURN_BYTES, [&](const Item& item) { gone.push_back(item.request); });
  const bool spoke = output_.sentBytes() != before;
  lock.lock();
  sending_ = false;
  spoke_ = spoke_ || spoke;
  for (const u32 id : gone) markSent(id, done);
  for (Item& item : pending_) output_.push(std::move(item));
  pending_.clear();
  letGo(done);
  if (failing()) {
    loop().run([self = shared_from_this()] { static_cast<OwnStream&>(*self).endIfFailing(); });
    return;
  }
  // Reading a socket that failed tells why; one that did not, and cannot be sent to (memory that the kernel cannot read), ends.
  if (flushed == Output::Flushed::failed) ::shutdown(fd_.get(), SHUT_RDWR);
  wantToWrite(flushed == Output::Flushed::blocked);
  if (flushed != Output::Flushed::blocked && flushed != Output::Flushed::failed && !output_.empty()) kick();
}

void OwnStream::writable() {
  Settlements done;
  {
    Lock lock(mutex_);
    kicked_ = false;
    if (!fd_ || sending_ || failing() || phase_ == Phase::connecting) return;
    if (output_.empty()) {
      wantToWrite(false);
    } else {
      send(lock, done);
    }
  }
  done.deliver(events());
}

void OwnStream::markSent(u32 id, Settlements& done) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  Request& request = *found->second;
  request.sent = true;
  if (request.answered) {
    settle(request, std::move(request.answer), request.verified, done);
    requests_.erase(found);
  }
}

void OwnStream::letGo(Settlements& done) {
  if (!std::exchange(givenUp_, false)) return;
  std::deque<Item>& items = output_.items();
  for (auto item = items.begin(); item != items.end();) {
    const auto found = requests_.find(item->request);
    if (found == requests_.end() || !found->second->dropped) {
      ++item;
      continue;
    }
    Request& request = *found->second;
    if (item->begun() || request.received) {
      // What is left of a write would land later than what is written over other streams: it is settled when it is answered.
      if (request.write) item->substitute();
      ++item;
    } else {
      settle(request, {Code::aborted, "given up"}, false, done);
      requests_.erase(found);
      item = items.erase(item);
    }
  }
}

void OwnStream::settle(Request& request, Status status, bool verified, Settlements& done) {
  if (request.slice != nullptr) done.add(*request.slice, std::move(status), verified);
  request.slice = nullptr;
}

void OwnStream::cancel(Batch& batch) {
  Settlements done;
  {
    const Lock lock(mutex_);
    for (const auto& [id, request] : requests_) {
      if (request->slice == nullptr || request->slice->batch != &batch) continue;
      if (request->dropped) continue;
      request->dropped = givenUp_ = true;
      request->limit = Clock::now() + GIVE_UP;
      if (request->write || (request.get() == current_ && reading_)) continue;
      request->target.drop();
      settle(*request, {Code::aborted, "given up"}, false, done);
    }
    // Otherwise whoever sends does, as soon as the system call returns.
    if (!sending_) letGo(done);
  }
  done.deliver(events());
}

void OwnStream::abandon(const Status& why, Settlements& done) {
  bool writes = false;
  for (const auto& [id, request] : requests_) {
    writes = writes || request->write;
    settle(*request, request->dropped ? Status(Code::aborted, "given up") : why, false, done);
  }
  if (writes) fences_->ended(number_, connection_);
  requests_.clear();
  output_.clear();
  pending_.clear();
  input_ = Input();
  current_ = nullptr;
  wasBusy_ = false;
}

void OwnStream::readable() {
  Settlements done;
  Status status;
  for (u64 turn = 0; status.ok(); turn += Input::CAPACITY) {
    Target* target = nullptr;
    {
      const Lock lock(mutex_);
      status = consume(done);
      if (current_ != nullptr) target = &current_->target;
      reading_ = status.ok() && turn < TURN_BYTES;
    }
    done.deliver(events());
    if (!status.ok() || turn >= TURN_BYTES) break;
    const Filled filled = input_.fill(fd_.get(), target);
    {
      const Lock lock(mutex_);
      reading_ = false;
      if (current_ != nullptr && current_->dropped) {
        current_->target.drop();
        settle(*current_, {Code::aborted, "given up"}, false, done);
      }
    }
    done.deliver(events());
    if (filled == Filled::later) break;
    if (filled == Filled::ended) status = {Code::peer, place() + " closed the connection"};
    if (filled == Filled::failed) status = systemError(place(), errno, Code::peer);
    heard_ = loop().now();
  }
  if (status.ok()) return;
  // What the peer sent is no reason to give up a slice: another stream may carry it.
  if (status.code == Code::protocol) status = {Code::peer, place() + " sent " + status.detail};
  fail(std::move(status), anotherPeer_);
}

Status OwnStream::consume(Settlements& done) {
  for (;;) {
    if (current_ != nullptr) {
      input_.drain(current_->target);
      if (current_->target.left() > 0) return {};
      current_ = nullptr;
    }
    input_.expect(FRAME_BYTES);
    if (input_.pending() < FRAME_BYTES) return {};
    if (phase_ == Phase::greeting) {
      if (Status status = takeHello(); !status.ok()) return status;
      continue;
    }
    Frame frame;
    if (Status status = readFrame(input_.peek(), frame); !status.ok()) return status;
    input_.skip(FRAME_BYTES);
    if (Status status = takeFrame(frame, done); !status.ok()) return status;
  }
}

Status OwnStream::takeHello() {
  Hello hello;
  if (Status status = readHello(input_.peek(), hello); !status.ok()) return status;
  input_.skip(HELLO_BYTES);
  if (hello.version != VERSION || (expected_ != 0 && hello.generation != expected_)) {
    anotherPeer_ = true;
    return {Code::peer, hello.version != VERSION ? place() + " speaks version " + std::to_string(hello.version)
                                                 : place() + " is another run of the peer"};
  }
  expected_ = hello.generation;
  fences_->replaced(number_);
  rise();
  return {};
}

Status OwnStream::takeFrame(const Frame& frame, Settlements& done) {
  switch (frame.type) {
    case FrameType::beat: return {};
    case FrameType::done: return takeAnswer(frame, done);
    case FrameType::data: {
      const auto found = requests_.find(frame.id);
      if (found == requests_.end()) return wrong("data that nobody asked for");
      Request& request = *found->second;
      if (request.write || request.received || frame.bytes != request.target.left()) {
        return wrong("data that does not fit its request");
      }
      request.received = true;
      current_ = &request;
      return {};
    }
    case FrameType::read:
    case FrameType::write:
    case FrameType::end:
    case FrameType::fence: return wrong("a request");
  }
  return {};
}

Status OwnStream::takeAnswer(const Frame& frame, Settlements& done) {
  const auto found = requests_.find(frame.id);
  if (found == requests_.end()) return wrong("an answer that nobody asked for");
  Request& request = *found->second;
  Status status;
  if (request.dropped && frame.code == Code::aborted) {
    status = {Code::aborted, "given up"};
  } else if (frame.code != Code::ok) {
    status = {frame.code, place() + " refused: " + refusal(frame.code)};
  } else if (!request.write && !request.received) {
    return wrong("an answer without data");
  } else if (request.verify && !frame.summed) {
    return wrong("an answer without a checksum");
  } else if (request.verify && !request.write && frame.sum != request.target.sum()) {
    status = {Code::corrupt, "what arrived from " + place() + " differs from what it sent"};
  }
  const bool verified = request.verify && status.ok();
  if (request.write && !request.sent) {
    request.answered = true;
    request.answer = std::move(status);
    request.verified = verified;
    return {};
  }
  settle(request, std::move(status), verified, done);
  requests_.erase(found);
  return {};
}

bool OwnStream::watch(u64 now) {
  Settlements done;
  bool busy = false;
  bool silent = false;
  bool stuck = false;
  {
    Lock lock(mutex_);
    for (const auto& [id, request] : requests_) {
      stuck = stuck || (request->dropped && request->slice != nullptr && Clock::now() >= request->limit);
    }
    busy = !requests_.empty();
    // The peer is asked for a sign of life from now on.
    if (busy && !wasBusy_) heard_ = now;
    wasBusy_ = busy;
    if (std::exchange(spoke_, false)) said_ = now;
    silent = now - heard_ >= (busy ? SILENCE_MS : IDLE_SILENCE_MS);
    const bool due = now - said_ >= (busy ? BEAT_MS : IDLE_BEAT_MS);
    if (!silent && due && !sending_ && output_.empty() && !failing()) {
      Item item;
      item.head.resize(FRAME_BYTES);
      writeFrame(item.head.data(), {});
      output_.push(std::move(item));
      send(lock, done);
    }
  }
  done.deliver(events());
  if (silent) fail({Code::peer, place() + " went silent"});
  if (stuck && !silent) fail({Code::peer, place() + " does not end what was given up"});
  return busy;
}

}  // namespace mooncake::tcp
