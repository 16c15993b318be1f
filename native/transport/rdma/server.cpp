#include "transport/rdma/server.h"

#include "checksum/crc64.h"
#include "transport/copy_pool.h"

namespace mooncake::rdma {

namespace {

/** Connections of all peers; the oldest goes where there would be more, and comes again where it is used. */
constexpr size_t MAX_CONNECTIONS = 1024;
/** Of one request: peers ask for a slice at a time (at most 1 MiB), and whoever closes waits for it. */
constexpr u64 MAX_SUM_BYTES = 64 << 20;

std::string valueOf(const Shake& shake, const char* key) {
  const auto found = shake.find(key);
  return found == shake.end() ? "" : found->second;
}

}  // namespace

Expected<u64> sumOf(MemoryTable& memory, std::span<const SumRecord> records) {
  u64 sum = 0;
  for (const SumRecord& record : records) {
    const SegmentRef segment = memory.hold(record.segment);
    if (segment && segment->backing == Backing::dmabuf) {
      return Status(Code::notSupported, "segment " + std::to_string(record.segment) + " is out of the processor's reach");
    }
    const bool fits = segment && segment->base != nullptr && record.offset <= segment->length &&
                      record.length <= segment->length - record.offset;
    if (!fits) {
      return Status(Code::segment, "segment " + std::to_string(record.segment) + " has no " + std::to_string(record.length) +
                                       " bytes at " + std::to_string(record.offset));
    }
    sum = crc64(segment->base + record.offset, record.length, sum);
  }
  return sum;
}

/** A request that a copy thread works at. */
struct Served::Sum {
  std::shared_ptr<Served> served;
  std::shared_ptr<Endpoint> endpoint;
  u32 number = 0;
  std::vector<SumRecord> records;

  static void run(void*, void* item) {
    const std::unique_ptr<Sum> self(static_cast<Sum*>(item));
    const Expected<u64> sum = sumOf(self->served->context_.memory, self->records);
    const MessageHeader header{MessageType::answer, sum.status.code, 0, self->number};
    const u64 value = sum.value;
    self->endpoint->messages()->send(header, {reinterpret_cast<const u8*>(&value), sizeof value});
    // An endpoint goes on its device's thread.
    Device& device = self->endpoint->device();
    device.completions().post([endpoint = std::move(self->endpoint)] {});
    self->served->sums_->end();
  }
};

Status Served::open(std::shared_ptr<Device> device, const Counterpart& other, const QueuePairLimits& limits, bool messages,
                    Shake& answer) {
  const u32 count = static_cast<u32>(other.numbers.size()) - (messages ? 1 : 0);
  auto endpoint = Endpoint::create(std::move(device), count, limits, messages, shared_from_this());
  if (!endpoint.ok()) return endpoint.status;
  if (Status status = endpoint.value->connect(other); !status.ok()) return status;
  endpoint_ = std::move(endpoint.value);
  endpoint_->describe(answer);
  return {};
}

void Served::completed(std::span<const ibv_wc> completions) {
  for (const ibv_wc& completion : completions) {
    const Work work = Work::of(static_cast<u32>(completion.wr_id));
    if (work.kind != Work::Kind::message || !endpoint_) continue;
    if (completion.status != IBV_WC_SUCCESS) {
      over_ = true;
      continue;
    }
    if (work.index < MessageChannel::SLOTS) handle(endpoint_->messages()->received(work.index, completion.byte_len));
    endpoint_->messages()->release(work.index);
  }
}

void Served::handle(std::span<const u8> bytes) {
  Message message;
  const bool good = parseMessage(bytes, message).ok();
  if (!good || message.header.type != MessageType::request) {
    over_ = true;
    return;
  }
  u64 total = 0;
  for (const SumRecord& record : message.records) total += std::min(record.length, MAX_SUM_BYTES + 1);
  if (total > MAX_SUM_BYTES) {
    over_ = true;
    return;
  }
  sums_->begin();
  auto* const sum = new Sum{shared_from_this(), endpoint_, message.header.number, {message.records.begin(), message.records.end()}};
  if (!context_.copies.submit({Sum::run, nullptr, sum})) Sum::run(nullptr, sum);
}

Shake Server::accept(const Shake& shake) {
  Shake answer{{"local_nic_path", valueOf(shake, "peer_nic_path")}, {"peer_nic_path", valueOf(shake, "local_nic_path")}};
  if (Status status = connect(shake, answer); !status.ok()) answer["reply_msg"] = status.detail;
  return answer;
}

Status Server::connect(const Shake& shake, Shake& answer) {
  const std::string wanted = valueOf(shake, "peer_nic_path");
  const std::string peer = valueOf(shake, "local_nic_path");
  std::shared_ptr<Device> device;
  for (const auto& candidate : devices_) {
    if (wanted == name_ + "@" + candidate->name()) device = candidate;
  }
  if (!device) return {Code::protocol, "no NIC of " + name_ + " is \"" + wanted.substr(0, 200) + "\""};
  const size_t at = peer.rfind('@');
  if (at == std::string::npos || at == 0 || at + 1 == peer.size()) {
    return {Code::protocol, "local_nic_path is no server@device: \"" + peer.substr(0, 200) + "\""};
  }
  const Expected<Counterpart> other = readCounterpart(shake);
  if (!other.ok()) return other.status;
  const std::string generation = valueOf(shake, "ts_generation");
  const bool own = !generation.empty();
  if (own && other.value.numbers.size() < 2) return {Code::protocol, "an engine of ours with one queue pair"};
  if (own && valueOf(shake, "ts_peer_generation") != std::to_string(context_.generation)) {
    return {Code::peer, name_ + " was started again: its generation is another"};
  }
  const std::string server = peer.substr(0, at);
  const std::string key = own ? generation + "#" + valueOf(shake, "ts_link") : peer + ">" + wanted;
  // A peer that connects again has given up what it had; one that was started again, all of it.
  sweep([&](const Connection& each) {
    return each.key == key || each.key == key + TRIAL || (own && each.peer == server && each.generation != generation && !each.generation.empty());
  });
  auto served = std::make_shared<Served>(context_, sums_);
  Status status;
  device->completions().run([&] { status = served->open(device, other.value, limits_, own, answer); });
  if (!status.ok()) return status;
  const std::lock_guard lock(mutex_);
  if (!closed_) {
    served_.push_back({key, server, generation, device, std::move(served)});
    return {};
  }
  device->completions().run([&] { served->close(); });
  return {Code::closed, "the engine is closed"};
}

void Server::sweep(const std::function<bool(const Connection&)>& gone) {
  std::list<Connection> ended;
  {
    const std::lock_guard lock(mutex_);
    size_t surplus = served_.size() >= MAX_CONNECTIONS ? served_.size() - MAX_CONNECTIONS + 1 : 0;
    for (auto each = served_.begin(); each != served_.end();) {
      const auto next = std::next(each);
      if (surplus > 0 || each->served->over() || gone(*each)) ended.splice(ended.end(), served_, each);
      if (surplus > 0) surplus--;
      each = next;
    }
  }
  for (const Connection& each : ended) each.device->completions().run([&] { each.served->close(); });
}

void Server::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  sweep([](const Connection&) { return true; });
  sums_->wait();
}

}  // namespace mooncake::rdma
