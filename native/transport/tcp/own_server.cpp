#include "transport/tcp/own_server.h"

#include "transport/tcp/pulse.h"

namespace mooncake::tcp {

namespace {

/** Bytes of one turn, so that one connection does not keep the others of its loop waiting. */
constexpr u64 TURN_BYTES = 2 << 20;

Item frameItem(const Frame& frame) {
  Item item;
  item.head.resize(FRAME_BYTES);
  writeFrame(item.head.data(), frame);
  return item;
}

}  // namespace

void OwnServer::begin(const u8* opening, size_t length) {
  heard_ = said_ = now();
  input_.feed(opening, length);
  receive();
}

void OwnServer::ready(u32 events) {
  if (events & EPOLLOUT) flush();
  // Also where nothing new came: requests may have waited in the staging area for room among the answers.
  if (open()) receive();
}

void OwnServer::receive() {
  for (u64 turn = 0;; turn += Input::CAPACITY) {
    if (!consume()) return close();
    if (full()) {
      flush();
      if (!open() || full()) return;
      continue;
    }
    if (turn >= TURN_BYTES) break;
    const Filled filled = input_.fill(fd(), phase_ == Phase::data ? &target_ : nullptr);
    if (filled == Filled::later) break;
    if (filled != Filled::some) return close();
    heard_ = now();
  }
  flush();
}

bool OwnServer::consume() {
  for (;;) {
    if (phase_ == Phase::data) {
      input_.drain(target_);
      if (target_.left() > 0) return true;
      phase_ = Phase::end;
    }
    // Requests wait in the staging area while answers do.
    if (full()) return true;
    input_.expect(FRAME_BYTES);
    if (input_.pending() < FRAME_BYTES) return true;
    if (phase_ == Phase::hello) {
      if (!takeHello()) return false;
      continue;
    }
    Frame frame;
    if (!readFrame(input_.peek(), frame).ok()) return false;
    const size_t whole = FRAME_BYTES + frame.records * RECORD_BYTES;
    input_.expect(whole);
    if (input_.pending() < whole) return true;
    if (frame.records > 0 && !readRecords(input_.peek() + FRAME_BYTES, frame, records_).ok()) return false;
    input_.skip(whole);
    if (!takeFrame(frame)) return false;
  }
}

bool OwnServer::takeHello() {
  Hello hello;
  if (!readHello(input_.peek(), hello).ok()) return false;
  input_.skip(HELLO_BYTES);
  Item item;
  item.head.resize(HELLO_BYTES);
  writeHello(item.head.data(), {VERSION, hello.generation, generation_});
  output_.push(std::move(item));
  phase_ = Phase::frames;
  if (hello.version != VERSION || (hello.expected != 0 && hello.expected != generation_)) {
    // Our hello says why.
    flush();
    return false;
  }
  if (hello.stream == 0) return true;
  client_ = {hello.generation, hello.stream};
  connection_ = hello.connection;
  endOther(clients_->enter(client_, {connection_, loop().shared_from_this(), weak_from_this()}));
  return true;
}

void OwnServer::endOther(const ServedClient& other) {
  const std::shared_ptr<OwnServer> server = other.server.lock();
  if (!server || server.get() == this) return;
  if (other.loop.get() == &loop()) return server->close();
  waiting_ = other.loop->run([server, self = shared_from_this(), here = loop().shared_from_this()] {
    server->close();
    here->run([self] {
      self->waiting_ = false;
      if (self->open()) self->receive();
    });
  });
}

bool OwnServer::takeFrame(const Frame& frame) {
  if (frame.type == FrameType::beat) return true;
  if (phase_ == Phase::end) {
    if (frame.type != FrameType::end || frame.id != writing_.id) return false;
    endWrite(frame);
    return true;
  }
  switch (frame.type) {
    case FrameType::fence:
      endOther(clients_->find({client_.generation, frame.id}, static_cast<u16>(frame.bytes)));
      return true;
    case FrameType::read: read(frame); return true;
    case FrameType::write: write(frame); return true;
    case FrameType::data:
    case FrameType::end:
    case FrameType::done:
    case FrameType::beat: return false;
  }
  return false;
}

template <class Visit>
Code OwnServer::reach(bool writing, std::vector<SegmentRef>& holds, Visit&& visit) {
  const Segment* segment = nullptr;
  for (const WireRecord& record : records_) {
    if (segment == nullptr || segment->id != record.segment) {
      SegmentRef ref = memory_.hold(record.segment);
      if (!ref || (writing && !ref->writable)) return Code::segment;
      if (ref->base == nullptr) return Code::notSupported;
      segment = &*ref;
      holds.push_back(std::move(ref));
    }
    if (record.offset > segment->length || record.length > segment->length - record.offset) return Code::segment;
    visit(segment->base + record.offset, record.length);
  }
  return Code::ok;
}

void OwnServer::read(const Frame& frame) {
  Frame done{FrameType::done, false, Code::ok, frame.id};
  Item item = frameItem({FrameType::data, false, Code::ok, frame.id, 0, frame.bytes});
  done.code = reach(false, item.holds, [&](u8* address, u64 length) { item.add(address, length); });
  if (done.code != Code::ok) return answer(done);
  item.summed = frame.summed;
  item.tailed = true;
  item.tail = done;
  output_.push(std::move(item));
}

void OwnServer::write(const Frame& frame) {
  writing_ = frame;
  target_.clear();
  writeCode_ = reach(true, holds_, [&](u8* address, u64 length) { target_.add(address, length); });
  if (writeCode_ != Code::ok) {
    target_.clear();
    holds_.clear();
  }
  target_.begin(frame.bytes, frame.summed);
  phase_ = Phase::data;
}

void OwnServer::endWrite(const Frame& end) {
  Frame done{FrameType::done, end.summed, writeCode_, end.id};
  if (done.code == Code::ok) done.code = end.code;
  if (done.code == Code::ok && (end.summed != writing_.summed || (end.summed && end.sum != target_.sum()))) {
    done.code = Code::corrupt;
  }
  holds_.clear();
  target_.clear();
  phase_ = Phase::frames;
  answer(done);
}

void OwnServer::answer(const Frame& frame) { output_.push(frameItem(frame)); }

void OwnServer::flush() {
  // Our hello says that the client's earlier connection has ended.
  if (waiting_) return await(0);
  const u64 before = output_.sentBytes();
  const bool paused = full();
  const Output::Flushed flushed = output_.flush(fd(), TURN_BYTES, [](const Item&) {});
  if (flushed == Output::Flushed::failed) return close();
  if (output_.sentBytes() != before) {
    said_ = now();
    // While its requests are left unread, a peer shows that it lives by reading.
    if (paused) heard_ = now();
  }
  await((full() ? 0 : u32{EPOLLIN}) | (flushed == Output::Flushed::all ? 0 : u32{EPOLLOUT}));
}

bool OwnServer::tick() {
  if (!open()) return false;
  const u64 silence = now() - heard_;
  const bool serving = !output_.empty() || phase_ == Phase::data || phase_ == Phase::end;
  if ((serving && silence >= SILENCE_MS) || (phase_ == Phase::hello && age() >= GREETING_MS)) {
    close();
    return false;
  }
  const bool expected = phase_ != Phase::hello && silence < HEARD_MS;
  if (expected && output_.empty() && now() - said_ >= BEAT_MS) {
    answer({});
    flush();
  }
  return serving || expected || phase_ == Phase::hello;
}

}  // namespace mooncake::tcp
