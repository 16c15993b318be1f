#include "transport/shm/server.h"

#include "checksum/copy.h"
#include "checksum/crc64.h"
#include "memory/process.h"
#include "transport/copy_pool.h"
#include "transport/shm/vm.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

namespace mooncake::shm {

namespace {

constexpr u32 MAX_CLIENTS = 4096;
constexpr u32 MAX_GRANTS = 1 << 16;
/** Stages of one client at once; its window is far below. */
constexpr u32 MAX_WORKING = 1024;
constexpr u32 MAX_SLOTS = 1024;
constexpr u32 MAX_SLOT_BYTES = 16 << 20;
constexpr u64 MAX_RING_BYTES = 64 << 20;
/** To say hello. */
constexpr u32 GREETING_MILLISECONDS = 3000;
/** Connections and messages that are taken in one go, so that nobody keeps the thread. */
constexpr int MAX_TURNS = 64;
/** A grantee of a mapping that has not answered a revocation for so long is not waited for. */
constexpr u32 PATIENCE_MILLISECONDS = 900;
/** Work that is cheaper than waking another thread. */
constexpr u64 INLINE_BYTES = 64 << 10;

Message refusal(Code code, const std::string& text) {
  Message message;
  message.type = MessageType::refusal;
  message.code = code;
  message.text = text;
  return message;
}

/** The segment's descriptor for a peer, which may not write what peers may not write. */
Fd shareable(const Segment& segment) {
  if (segment.backing != Backing::memfd || segment.fd < 0) return Fd();
  if (segment.writable) return Fd(::fcntl(segment.fd, F_DUPFD_CLOEXEC, 0));
  const std::string path = "/proc/self/fd/" + std::to_string(segment.fd);
  return Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

}  // namespace

Server::Server(TransportContext& context, std::shared_ptr<Loop> loop, Place place)
    : context_(context), loop_(std::move(loop)), place_(std::move(place)) {}

Status Server::start() {
  Status status;
  loop_->run([&] { status = loop_->watch(place_.fd(), EPOLLIN, [this](u32) { accept(); }); });
  if (!status.ok()) return status;
  open_ = true;
  watch_ = context_.memory.watch([this](const Segment& segment) { loop_->post([this, id = segment.id] { revoke(id); }); });
  return {};
}

void Server::close() {
  if (!open_) return;
  open_ = false;
  context_.memory.unwatch(watch_);
  loop_->run([this] {
    loop_->unwatch(place_.fd());
    place_.close();
    while (!clients_.empty()) drop(clients_.begin()->first);
  });
  {
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return working_ == 0; });
  }
  loop_->run([this] { loop_->untick(this); });
}

void Server::accept() {
  for (int i = 0; i < MAX_TURNS; i++) {
    Fd socket(::accept4(place_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket) {
      if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
      // It would be reported over and over.
      paused_ = true;
      loop_->change(place_.fd(), 0);
      return startTicking();
    }
    Channel channel(std::move(socket));
    const Credentials peer = channel.credentials();
    const uid_t own = ::geteuid();
    if (!place_.anyPeer() && peer.uid != own && peer.uid != 0) {
      static_cast<void>(channel.send(refusal(Code::peer, "user " + std::to_string(peer.uid) + " is not user " +
                                                             std::to_string(own) + ", and the listener's peers are \"same\"")));
      continue;
    }
    if (clients_.size() >= MAX_CLIENTS) {
      static_cast<void>(channel.send(refusal(Code::queueFull, std::to_string(MAX_CLIENTS) + " peers are connected")));
      continue;
    }
    const u64 id = nextClient_++;
    const int fd = channel.fd();
    if (!loop_->watch(fd, EPOLLIN, [this, id](u32 events) { serve(id, events); }).ok()) continue;
    Client& client = clients_[id];
    client.id = id;
    client.channel = std::move(channel);
    startTicking();
  }
}

void Server::serve(u64 id, u32 events) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  Client& client = found->second;
  if ((events & EPOLLOUT) != 0) {
    if (!client.channel.flush().ok()) return drop(id);
    if (!client.channel.congested()) loop_->change(client.channel.fd(), EPOLLIN);
  }
  for (int i = 0; i < MAX_TURNS; i++) {
    Message message;
    Fd descriptor;
    Status status;
    switch (client.channel.receive(message, descriptor, status)) {
      case Channel::Got::nothing: return;
      case Channel::Got::closed: return drop(id);
      case Channel::Got::message: status = handle(client, message, std::move(descriptor)); break;
      case Channel::Got::bad: break;
    }
    if (!status.ok()) {
      static_cast<void>(client.channel.send(refusal(status.code, status.detail)));
      return drop(id);
    }
  }
}

Status Server::handle(Client& client, Message& message, Fd descriptor) {
  if (!client.greeted && message.type != MessageType::hello) return {Code::protocol, "the first message is no hello"};
  switch (message.type) {
    case MessageType::hello: return greet(client, message);
    case MessageType::grantRequest: return grant(client, message);
    case MessageType::released: client.grants.erase(message.token); return {};
    case MessageType::ring: return attachRing(client, message, descriptor);
    case MessageType::stage: return begin(client, message);
    case MessageType::ping: {
      Message pong;
      pong.type = MessageType::pong;
      return send(client, pong);
    }
    case MessageType::pong: return {};
    case MessageType::refusal:
    case MessageType::grant:
    case MessageType::revoke:
    case MessageType::done: break;
  }
  return {Code::protocol, "message type " + std::to_string(static_cast<int>(message.type)) + " from a grantee"};
}

Status Server::greet(Client& client, const Message& message) {
  if (client.greeted) return {Code::protocol, "a second hello"};
  if (message.hello.version != PROTOCOL_VERSION) {
    return {Code::peer, "protocol version " + std::to_string(message.hello.version) + "; this side speaks " +
                            std::to_string(PROTOCOL_VERSION)};
  }
  if (message.hello.expected != 0 && message.hello.expected != context_.generation) {
    return {Code::peer, "the peer was restarted: its generation is another than its descriptor said"};
  }
  client.greeted = true;
  Message answer;
  answer.type = MessageType::hello;
  answer.hello.generation = context_.generation;
  answer.hello.expected = message.hello.generation;
  const ProbeTarget& target = probeTarget();
  answer.hello.probeAddress = reinterpret_cast<u64>(&target);
  std::memcpy(answer.hello.nonce, target.nonce, sizeof target.nonce);
  return send(client, answer);
}

Status Server::grant(Client& client, const Message& message) {
  if (client.grants.count(message.token) > 0) return {Code::protocol, "a grant's number twice"};
  Message answer;
  answer.type = MessageType::grant;
  answer.token = message.token;
  answer.grant.segment = message.grant.segment;
  SegmentRef hold = context_.memory.hold(message.grant.segment);
  if (!hold || hold->base == nullptr) {
    answer.code = Code::segment;
    return send(client, answer);
  }
  if (client.grants.size() >= MAX_GRANTS) {
    answer.code = Code::queueFull;
    return send(client, answer);
  }
  answer.grant.writable = hold->writable ? 1 : 0;
  answer.grant.address = reinterpret_cast<u64>(hold->base);
  answer.grant.length = hold->length;
  answer.grant.fdOffset = hold->fdOffset;
  Fd descriptor = shareable(*hold);
  Grant& made = client.grants[message.token];
  // Memory that no engine owns is its owner's again when the segment has gone.
  made.harmless = descriptor && !processMemory().holdAddress(answer.grant.address, answer.grant.length);
  made.hold = std::move(hold);
  return send(client, answer, std::move(descriptor));
}

Status Server::attachRing(Client& client, const Message& message, const Fd& descriptor) {
  const RingBody& shape = message.ring;
  if (client.ring || !descriptor || shape.slots == 0 || shape.slots > MAX_SLOTS || shape.slotBytes == 0 ||
      shape.slotBytes > MAX_SLOT_BYTES || u64{shape.slots} * shape.slotBytes > MAX_RING_BYTES) {
    return {Code::protocol, "a ring of " + std::to_string(shape.slots) + " slots of " + std::to_string(shape.slotBytes)};
  }
  Expected<Mapping> mapping = Mapping::open(descriptor.get(), 0, u64{shape.slots} * shape.slotBytes, true);
  if (!mapping.ok()) return mapping.status;
  client.ring = std::make_shared<Mapping>(std::move(mapping.value));
  client.shape = shape;
  return {};
}

Status Server::begin(Client& client, Message& message) {
  if (!client.ring || message.work.slot >= client.shape.slots) {
    return {Code::protocol, "slot " + std::to_string(message.work.slot) + " of no ring"};
  }
  if (client.working >= MAX_WORKING) return {Code::protocol, "more than " + std::to_string(MAX_WORKING) + " requests at once"};
  u64 bytes = 0;
  for (const WirePiece& piece : message.pieces) {
    if (piece.length > client.shape.slotBytes - bytes) return {Code::protocol, "more bytes than a slot has"};
    bytes += piece.length;
  }
  client.working++;
  auto* const work = new Work{client.id, std::move(message), client.ring, client.shape, client.gone, {}};
  {
    const std::lock_guard lock(mutex_);
    working_++;
  }
  const auto run = [](void* owner, void* item) { static_cast<Server*>(owner)->perform(*static_cast<Work*>(item)); };
  if (bytes <= INLINE_BYTES || !context_.copies.submit({run, this, work})) perform(*work);
  return {};
}

void Server::perform(Work& work) {
  const Status status = move(work, work.reply.crc);
  work.reply.type = MessageType::done;
  work.reply.token = work.request.token;
  work.reply.code = status.code;
  loop_->post([this, done = std::shared_ptr<Work>(&work)] { reply(*done); });
  // Last, under the lock: close() goes on as soon as it sees no work, and then lets the posted call run.
  const std::lock_guard lock(mutex_);
  if (--working_ == 0) idle_.notify_all();
}

Status Server::move(const Work& work, u64& crc) {
  const bool write = (work.request.work.flags & WORK_WRITE) != 0;
  const bool sum = (work.request.work.flags & WORK_SUM) != 0;
  const Store store = write && (work.request.work.flags & WORK_STREAM) != 0 ? Store::streaming : Store::cached;
  u8* at = work.ring->data() + u64{work.request.work.slot} * work.shape.slotBytes;
  SegmentRef hold;
  for (const WirePiece& piece : work.request.pieces) {
    // Whoever asked may have written the same memory in another way since.
    if (*work.gone) return {Code::peer, ""};
    if (!hold || hold->id != piece.segment) hold = context_.memory.hold(piece.segment);
    if (!hold || hold->base == nullptr || piece.offset > hold->length || piece.length > hold->length - piece.offset ||
        (write && !hold->writable)) {
      return {Code::segment, ""};
    }
    u8* const memory = hold->base + piece.offset;
    u8* const to = write ? memory : at;
    const u8* const from = write ? at : memory;
    if (sum) {
      crc = copyCrc64(to, from, piece.length, crc, store);
    } else {
      copyBytes(to, from, piece.length, store);
    }
    at += piece.length;
  }
  return {};
}

void Server::reply(const Work& work) {
  const auto found = clients_.find(work.client);
  if (found == clients_.end()) return;
  found->second.working--;
  if (!send(found->second, work.reply).ok()) drop(work.client);
}

void Server::revoke(u32 segment) {
  Message message;
  message.type = MessageType::revoke;
  std::vector<u64> broken;
  for (auto& [id, client] : clients_) {
    for (auto& [number, granted] : client.grants) {
      if (granted.revoked || !granted.hold || granted.hold->id != segment) continue;
      granted.revoked = true;
      message.token = number;
      if (!send(client, message).ok()) {
        broken.push_back(id);
        break;
      }
    }
  }
  for (const u64 id : broken) drop(id);
  startTicking();
}

void Server::startTicking() {
  loop_->tick(this, [this](u32 milliseconds) { tick(milliseconds); });
}

void Server::tick(u32 milliseconds) {
  const bool grants = expireGrants(milliseconds);
  const bool strangers = expireStrangers(milliseconds);
  if (std::exchange(paused_, false)) loop_->change(place_.fd(), EPOLLIN);
  if (!grants && !strangers) loop_->untick(this);
}

bool Server::expireStrangers(u32 milliseconds) {
  std::vector<u64> silent;
  bool waiting = false;
  for (auto& [id, client] : clients_) {
    if (client.greeted) continue;
    client.ungreetedMilliseconds += milliseconds;
    waiting = true;
    if (client.ungreetedMilliseconds >= GREETING_MILLISECONDS) silent.push_back(id);
  }
  for (const u64 id : silent) drop(id);
  return waiting;
}

bool Server::expireGrants(u32 milliseconds) {
  bool waiting = false;
  for (auto& [id, client] : clients_) {
    for (auto& [number, granted] : client.grants) {
      if (!granted.revoked || !granted.harmless || !granted.hold) continue;
      granted.waitedMilliseconds += milliseconds;
      if (granted.waitedMilliseconds >= PATIENCE_MILLISECONDS) {
        granted.hold.reset();
      } else {
        waiting = true;
      }
    }
  }
  return waiting;
}

Status Server::send(Client& client, const Message& message, Fd descriptor) {
  Status status = client.channel.send(message, std::move(descriptor));
  if (status.ok() && client.channel.congested()) loop_->change(client.channel.fd(), EPOLLIN | EPOLLOUT);
  return status;
}

void Server::drop(u64 id) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  loop_->unwatch(found->second.channel.fd());
  *found->second.gone = true;
  // Erased first: letting go of a segment may run whoever waited for it.
  Client gone = std::move(found->second);
  clients_.erase(found);
}

}  // namespace mooncake::shm
