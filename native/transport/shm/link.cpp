#include "transport/shm/link.h"

#include "transport/shm/vm.h"

#include <sys/epoll.h>

#include <algorithm>

namespace mooncake::shm {

namespace {

constexpr u32 PING_MILLISECONDS = 250;
constexpr u32 SILENCE_MILLISECONDS = 900;
/** Taken in one go, so that the thread has time for others. */
constexpr int MAX_MESSAGES = 64;

}  // namespace

ShmLink::ShmLink(TransportContext& context, std::shared_ptr<Loop> loop, LinkEvents& events, std::string path,
                 u64 generation, Reach best, Status failure)
    : context_(context),
      events_(events),
      loop_(std::move(loop)),
      name_("shm " + path),
      path_(std::move(path)),
      generation_(generation),
      best_(best),
      failure_(std::move(failure)) {
  capabilities_.read = true;
  capabilities_.write = true;
  capabilities_.verify = true;
  capabilities_.windowBytes = u64{16} << 20;
  capabilities_.bandwidth = 8e9;
  capabilities_.rank = 1;
  if (!failure_.ok()) {
    state_ = LinkState::down;
  } else {
    loop_->post([this] { connect(); });
  }
}

Status ShmLink::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

std::string ShmLink::detail() const {
  const std::lock_guard lock(mutex_);
  return detail_;
}

void ShmLink::close() {
  {
    std::unique_lock lock(mutex_);
    if (closed_) return;
    closed_ = closing_ = true;
  }
  loop_->run([this] { fail({Code::closed, "the link is closed"}); });
  {
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return inside_ == 0; });
  }
  // No slice is left: grants go, and with the connection the owner's holds.
  loop_->run([this] {
    closeIfIdle();
    const std::unique_lock lock(grantsMutex_);
    grants_.clear();
  });
  // Grants told the loop that they went.
  loop_->run([] {});
  loop_.reset();
}

void ShmLink::connect() {
  if (state_ != LinkState::connecting || channel_.fd() >= 0) return;
  await();
  Expected<Fd> socket = connectTo(path_);
  // Its backlog is full: the next tick tries again.
  if (socket.status.code == Code::queueFull) return;
  if (!socket.ok()) return fail({Code::peer, std::move(socket.status.detail)});
  channel_ = Channel(std::move(socket.value));
  if (Status status = loop_->watch(channel_.fd(), EPOLLIN, [this](u32 events) { serve(events); }); !status.ok()) {
    return fail(std::move(status));
  }
  Message hello;
  hello.type = MessageType::hello;
  hello.hello.generation = context_.generation;
  hello.hello.expected = generation_;
  send(hello);
}

void ShmLink::serve(u32 events) {
  if ((events & EPOLLOUT) != 0) {
    if (Status status = channel_.flush(); !status.ok()) return fail(std::move(status));
    if (!channel_.congested()) loop_->change(channel_.fd(), EPOLLIN);
  }
  for (int i = 0; i < MAX_MESSAGES && state_ != LinkState::down; i++) {
    Message message;
    Fd descriptor;
    Status status;
    switch (channel_.receive(message, descriptor, status)) {
      case Channel::Got::nothing: return;
      case Channel::Got::closed: return fail({Code::peer, "the peer has gone (" + path_ + ")"});
      case Channel::Got::message: status = handle(message, std::move(descriptor)); break;
      case Channel::Got::bad: break;
    }
    silence_ = 0;
    if (!status.ok()) return fail(std::move(status));
  }
  // Down, with slices that still run: what the peer says is of no use, and its end is no news.
  if (state_ == LinkState::down && channel_.fd() >= 0) loop_->unwatch(channel_.fd());
}

Status ShmLink::handle(Message& message, Fd descriptor) {
  if (message.type == MessageType::refusal) return {message.code == Code::ok ? Code::peer : message.code, message.text};
  if (message.type == MessageType::hello) return greeted(message);
  if (!greeted_) return {Code::protocol, "shared memory: the peer's first message is no hello"};
  switch (message.type) {
    case MessageType::grant: return granted(message, descriptor);
    case MessageType::revoke: revoked(message.token); return {};
    case MessageType::done: answered(message); return {};
    case MessageType::ping:
      message.type = MessageType::pong;
      send(message);
      return {};
    case MessageType::pong: return {};
    case MessageType::hello:
    case MessageType::refusal:
    case MessageType::grantRequest:
    case MessageType::released:
    case MessageType::ring:
    case MessageType::stage: break;
  }
  return {Code::protocol, "shared memory: message type " + std::to_string(static_cast<int>(message.type)) + " from an owner"};
}

Status ShmLink::greeted(const Message& message) {
  const HelloBody& hello = message.hello;
  if (greeted_) return {Code::protocol, "shared memory: a second hello"};
  if (hello.version != PROTOCOL_VERSION) {
    return {Code::peer, "shared memory: the peer speaks version " + std::to_string(hello.version)};
  }
  if (generation_ != 0 && hello.generation != generation_) {
    return {Code::peer, "the peer was restarted: its generation is another than its descriptor said"};
  }
  greeted_ = true;
  pid_ = channel_.credentials().pid;
  std::string detail = "mapped";
  if (best_ == Reach::staged) {
    detail = "staged: nothing better is allowed by the setting reach";
  } else {
    const Status probed = probeProcess(pid_, hello.probeAddress, hello.nonce);
    vm_ = probed.ok();
    detail = std::string(best_ == Reach::mapped ? "memfd mapped, " : "") + "other memory " +
             (probed.ok() ? "by process_vm" : "staged: " + probed.detail);
  }
  {
    const std::lock_guard lock(mutex_);
    detail_ = std::move(detail);
  }
  state_ = LinkState::up;
  unpark();
  context_.wake();
  return {};
}

Status ShmLink::granted(const Message& message, const Fd& descriptor) {
  const auto asked = asked_.find(message.token);
  if (asked == asked_.end()) return {Code::protocol, "shared memory: a grant that nobody asked for"};
  const u32 segment = asked->second;
  asked_.erase(asked);
  expected_.erase(segment);
  if (message.code != Code::ok) {
    const Status refused(message.code, "the peer does not grant its segment " + std::to_string(segment));
    for (auto at = parked_.begin(); at != parked_.end();) {
      Transfer& transfer = **at;
      if (transfer.missing.count(segment) == 0) {
        ++at;
        continue;
      }
      at = parked_.erase(at);
      transfer.fail(refused);
      complete(transfer);
    }
    return {};
  }
  if (message.grant.segment != segment) return {Code::protocol, "shared memory: a grant of another segment"};
  const auto grant = std::make_shared<Grant>();
  grant->number = message.token;
  grant->segment = segment;
  grant->writable = message.grant.writable != 0;
  grant->address = message.grant.address;
  grant->length = message.grant.length;
  grant->reach = vm_ ? Reach::vm : Reach::staged;
  if (descriptor && best_ == Reach::mapped) {
    Expected<Mapping> mapping =
        Mapping::open(descriptor.get(), message.grant.fdOffset, message.grant.length, grant->writable);
    if (mapping.ok()) {
      grant->mapping = std::move(mapping.value);
      grant->reach = Reach::mapped;
    } else if (const std::lock_guard lock(mutex_); detail_.size() < 512) {
      detail_ += "; segment " + std::to_string(segment) + " not mapped: " + mapping.status.detail;
    }
  }
  grant->released = [this](u32 token) {
    loop_->post([this, token] {
      Message released;
      released.type = MessageType::released;
      released.token = token;
      send(released);
    });
  };
  {
    const std::unique_lock lock(grantsMutex_);
    grants_[segment] = grant;
  }
  for (Transfer* const transfer : parked_) transfer->missing.erase(segment);
  unpark();
  return {};
}

void ShmLink::revoked(u32 token) {
  std::shared_ptr<Grant> taken;
  const std::unique_lock lock(grantsMutex_);
  for (auto at = grants_.begin(); at != grants_.end(); ++at) {
    if (at->second->number != token) continue;
    at->second->revoked = true;
    taken = std::move(at->second);
    grants_.erase(at);
    return;
  }
}

void ShmLink::send(const Message& message, Fd descriptor) {
  if (state_ == LinkState::down || channel_.fd() < 0) return;
  if (Status status = channel_.send(message, std::move(descriptor)); !status.ok()) {
    // A peer that refuses says so and hangs up: its reason is better than ours.
    serve(0);
    return fail(std::move(status));
  }
  if (channel_.congested()) loop_->change(channel_.fd(), EPOLLIN | EPOLLOUT);
}

void ShmLink::fail(Status why) {
  if (state_ == LinkState::down) return;
  {
    const std::lock_guard lock(mutex_);
    failure_ = why;
    closing_ = true;
  }
  state_ = LinkState::down;
  loop_->untick(this);
  while (!pending_.empty()) {
    Job* const job = pending_.begin()->second;
    pending_.erase(pending_.begin());
    finish(*job, why);
  }
  while (!slotless_.empty()) {
    Job* const job = slotless_.front();
    slotless_.pop_front();
    finish(*job, why);
  }
  while (!parked_.empty()) {
    Transfer* const transfer = parked_.front();
    parked_.pop_front();
    transfer->fail(why);
    complete(*transfer);
  }
  closeIfIdle();
  context_.wake();
}

void ShmLink::closeIfIdle() {
  // The owner drops its holds when the connection ends: not before the last slice of ours has.
  {
    const std::lock_guard lock(mutex_);
    if (inside_ > 0) return;
  }
  if (channel_.fd() < 0) return;
  loop_->unwatch(channel_.fd());
  channel_.close();
}

bool ShmLink::waiting() const {
  return state_ == LinkState::connecting || !pending_.empty() || !asked_.empty() || !slotless_.empty();
}

void ShmLink::await() {
  if (std::exchange(ticking_, true)) return;
  silence_ = sincePing_ = 0;
  loop_->tick(this, [this](u32 milliseconds) { tick(milliseconds); });
}

void ShmLink::tick(u32 milliseconds) {
  if (!waiting()) {
    ticking_ = false;
    return loop_->untick(this);
  }
  silence_ += milliseconds;
  sincePing_ += milliseconds;
  if (silence_ >= SILENCE_MILLISECONDS) {
    return fail({Code::peer, "the peer has been silent for " + std::to_string(silence_) + " ms (" + path_ + ")"});
  }
  const bool owes = std::any_of(pending_.begin(), pending_.end(), [](const auto& job) { return job.second->transfer->cancelled.load(); });
  overdue_ = owes ? overdue_ + milliseconds : 0;
  if (overdue_ >= SILENCE_MILLISECONDS) {
    return fail({Code::peer, "the peer does not end what was given up (" + path_ + ")"});
  }
  if (channel_.fd() < 0) return connect();
  if (sincePing_ < PING_MILLISECONDS || !greeted_) return;
  sincePing_ = 0;
  Message ping;
  ping.type = MessageType::ping;
  send(ping);
}

}  // namespace mooncake::shm
