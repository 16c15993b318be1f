#include "transport/shm/shm.h"

#include "transport/shm/link.h"
#include "transport/shm/server.h"
#include "transport/shm/vm.h"

#include "engine/peer.h"

#include <sys/prctl.h>

#include <cerrno>
#include <cstdlib>

namespace mooncake {

namespace shm {

namespace {

Expected<Reach> reachOf(const Settings& endpoint) {
  const auto setting = endpoint.find("reach");
  const char* const variable = std::getenv("MOONCAKE_SHM_REACH");
  const std::string value = variable != nullptr ? variable : setting != endpoint.end() ? setting->second : "mapped";
  if (value == "mapped") return Reach::mapped;
  if (value == "vm") return Reach::vm;
  if (value == "staged") return Reach::staged;
  return Status(Code::invalidArgument, "reach \"" + value + "\" is none of mapped, vm, staged");
}

class ShmTransport final : public Transport {
 public:
  explicit ShmTransport(TransportContext& context) : context_(context) {}
  ~ShmTransport() override { close(); }

  const char* name() const override { return "shm"; }

  Probe probe() override {
    Fd descriptor;
    const Expected<Mapping> ring = Mapping::create(4096, descriptor);
    std::string processVm;
    // Staging works without it.
    static_cast<void>(probeSelf(processVm));
    if (!ring.ok()) return {false, "no memfd: " + ring.status.detail};
    return {true, "memfd, " + processVm};
  }

  Expected<Settings> listen(const Settings& settings) override {
    const std::lock_guard lock(mutex_);
    if (closed_) return Status(Code::closed, "the transport is closed");
    if (server_) return Status(Code::invalidArgument, "shm listens already");
    const auto ptracer = settings.find("ptracer");
    if (ptracer != settings.end() && ptracer->second != "any" && ptracer->second != "none") {
      return Status(Code::invalidArgument, "ptracer \"" + ptracer->second + "\" is neither \"any\" nor \"none\"");
    }
    if (Status status = startLoop(); !status.ok()) return status;
    Expected<Place> place = Place::listen(settings, context_.generation);
    if (!place.ok()) return place.status;
    auto server = std::make_unique<Server>(context_, loop_, std::move(place.value));
    if (Status status = server->start(); !status.ok()) return status;
    // Where Yama is not there, this fails and is not needed.
    if (ptracer != settings.end() && ptracer->second == "any") ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    server_ = std::move(server);
    return server_->announced();
  }

  Expected<std::vector<std::unique_ptr<Link>>> open(const Settings& endpoint, Peer& peer, LinkEvents& events) override {
    const std::lock_guard lock(mutex_);
    if (closed_) return Status(Code::closed, "the transport is closed");
    const auto socket = endpoint.find("socket");
    if (socket == endpoint.end()) return Status(Code::invalidArgument, "endpoint of shm without \"socket\"");
    const Expected<Reach> best = reachOf(endpoint);
    if (!best.ok()) return best.status;
    if (Status status = startLoop(); !status.ok()) return status;
    std::vector<std::unique_ptr<Link>> links;
    links.push_back(std::make_unique<ShmLink>(context_, loop_, events, socket->second, peer.generation(), best.value,
                                              checkPlace(endpoint)));
    return links;
  }

  void close() override {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    if (server_) server_->close();
    server_.reset();
    // Links that are still open share the thread; it ends with the last of them.
    loop_.reset();
  }

 private:
  Status startLoop() {
    if (loop_) return {};
    Expected<std::shared_ptr<Loop>> loop = Loop::start(context_.spin);
    if (loop.ok()) loop_ = std::move(loop.value);
    return loop.status;
  }

  TransportContext& context_;
  std::mutex mutex_;
  bool closed_ = false;
  std::shared_ptr<Loop> loop_;
  std::unique_ptr<Server> server_;
};

}  // namespace

}  // namespace shm

std::unique_ptr<Transport> makeShmTransport(TransportContext& context) { return std::make_unique<shm::ShmTransport>(context); }

}  // namespace mooncake
