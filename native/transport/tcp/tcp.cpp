#include "transport/tcp/tcp.h"

#include "engine/peer.h"
#include "transport/tcp/link.h"
#include "transport/tcp/listener.h"
#include "transport/tcp/own_stream.h"
#include "transport/tcp/resolver.h"
#include "transport/tcp/stock_stream.h"

#include <algorithm>

namespace mooncake::tcp {

namespace {

constexpr u32 MAX_LOOPS = 2;
constexpr u32 OWN_STREAMS = 2;
constexpr u32 STOCK_STREAMS = 4;
constexpr u32 MAX_STREAMS = 16;

std::string setting(const Settings& settings, const char* key, const char* otherwise) {
  const auto found = settings.find(key);
  return found == settings.end() ? otherwise : found->second;
}

Status invalid(const char* key, const std::string& value, const char* wanted) {
  return {Code::invalidArgument, std::string("setting ") + key + " is \"" + value + "\": " + wanted};
}

class TcpTransport final : public Transport {
 public:
  explicit TcpTransport(TransportContext& context) : context_(context) {}
  ~TcpTransport() override { close(); }

  const char* name() const override { return "tcp"; }
  Probe probe() override {
    const Fd v6(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return {true, v6 ? "IPv4 and IPv6" : "IPv4"};
  }
  Expected<Settings> listen(const Settings& settings) override;
  Expected<std::vector<std::unique_ptr<Link>>> open(const Settings& endpoint, Peer& peer, LinkEvents& events) override;
  void close() override;

 private:
  Status startLoops();

  TransportContext& context_;
  std::mutex mutex_;
  Loops loops_;
  std::vector<std::shared_ptr<Listener>> listeners_;
  Resolver resolver_;
  /** Of all listeners: a peer may reach us by several. */
  const std::shared_ptr<Clients> clients_ = std::make_shared<Clients>();
  /** By the peer's generation. */
  std::map<u64, std::weak_ptr<Fences>> fences_;
  u32 lastStream_ = 0;
  size_t nextLoop_ = 0;
  bool closed_ = false;
};

Status TcpTransport::startLoops() {
  if (closed_) return {Code::closed, "TCP is closed"};
  if (!loops_.empty()) return {};
  const u32 count = std::clamp(std::thread::hardware_concurrency(), 1u, MAX_LOOPS);
  Loops loops;
  for (u32 i = 0; i < count; i++) {
    auto loop = std::make_shared<Loop>(context_.spin);
    if (Status status = loop->start(); !status.ok()) {
      for (const auto& started : loops) started->stop();
      return status;
    }
    loops.push_back(std::move(loop));
  }
  loops_ = std::move(loops);
  return {};
}

Expected<Settings> TcpTransport::listen(const Settings& settings) {
  const std::string host = setting(settings, "host", "127.0.0.1");
  const std::string port = setting(settings, "port", "0");
  u16 number = 0;
  if (!parsePort(port, true, number)) return invalid("port", port, "0 to 65535");
  Expected<std::vector<Address>> addresses = resolve(host, port, false);
  if (!addresses.ok()) return invalid("host", host, addresses.status.detail.c_str());
  Expected<Fd> fd = listenOn(addresses.value[0]);
  if (!fd.ok()) return Status{fd.status.code, formatPlace(host, port) + ": " + fd.status.detail};
  Expected<Address> bound = localAddress(fd.value);
  if (!bound.ok()) return bound.status;
  const std::lock_guard lock(mutex_);
  if (Status status = startLoops(); !status.ok()) return status;
  const auto served = std::make_shared<const Served>(Served{context_.memory, context_.generation, context_.handshake, clients_});
  auto listener = std::make_shared<Listener>(loops_, served, std::move(fd.value));
  Listener::start(listener);
  listeners_.push_back(std::move(listener));
  return Settings{{"host", host}, {"port", std::to_string(bound.value.port())}};
}

Expected<std::vector<std::unique_ptr<Link>>> TcpTransport::open(const Settings& endpoint, Peer& peer, LinkEvents& events) {
  const std::string host = setting(endpoint, "host", "");
  const std::string port = setting(endpoint, "port", "");
  const std::string kind = setting(endpoint, "framing", "own");
  u16 number = 0;
  if (host.empty()) return invalid("host", host, "a name or an address");
  if (!parsePort(port, false, number)) return invalid("port", port, "1 to 65535");
  if (kind != "own" && kind != "stock1" && kind != "stock2") return invalid("framing", kind, "own, stock1 or stock2");
  const bool own = kind == "own";
  const std::string streams = setting(endpoint, "streams", "");
  u16 count = own ? OWN_STREAMS : STOCK_STREAMS;
  if (!streams.empty() && (!parsePort(streams, false, count) || count > MAX_STREAMS)) {
    return invalid("streams", streams, "1 to 16");
  }

  const std::lock_guard lock(mutex_);
  if (Status status = startLoops(); !status.ok()) return status;
  const auto route = std::make_shared<Route>();
  route->place = formatPlace(host, port);
  if (Expected<std::vector<Address>> literal = resolve(host, port, true); literal.ok()) {
    route->addresses = std::move(literal.value);
  } else {
    resolver_.lookUp(route, host, port);
  }

  std::erase_if(fences_, [](const auto& entry) { return entry.second.expired(); });
  std::shared_ptr<Fences> fences = peer.generation() == 0 ? nullptr : fences_[peer.generation()].lock();
  if (!fences) fences = std::make_shared<Fences>();
  if (peer.generation() != 0) fences_[peer.generation()] = fences;
  Capabilities can;
  can.read = can.write = true;
  can.verify = own;
  can.rank = 3;
  std::vector<std::unique_ptr<Link>> links;
  const size_t firstLoop = nextLoop_++;
  for (u32 i = 0; i < count; i++) {
    // A stock peer serves all its connections from one thread: a second thread of ours gains nothing over the network, and on
    // one machine takes its processor away.
    const size_t loop = own && i > 0 ? nextLoop_++ : firstLoop;
    StreamContext context{loops_[loop % loops_.size()], route, events, context_.wake};
    std::shared_ptr<Stream> stream;
    if (own) {
      stream = std::make_shared<OwnStream>(std::move(context), peer.generation(), context_.generation, ++lastStream_, fences);
    } else {
      stream = std::make_shared<StockStream>(std::move(context), peer, kind == "stock2");
    }
    links.push_back(std::make_unique<TcpLink>("tcp " + route->place + " #" + std::to_string(i + 1), can, std::move(stream)));
  }
  return links;
}

void TcpTransport::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  for (const auto& listener : listeners_) listener->stop();
  listeners_.clear();
  resolver_.close();
  for (const auto& loop : loops_) loop->stop();
}

}  // namespace

}  // namespace mooncake::tcp

namespace mooncake {

std::unique_ptr<Transport> makeTcpTransport(TransportContext& context) { return std::make_unique<tcp::TcpTransport>(context); }

}  // namespace mooncake
