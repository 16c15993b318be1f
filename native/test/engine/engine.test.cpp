// The engine with its own timer and its own transports: batches that nobody settles, and links that close beside it.
#include "test/check.h"
#include "test/engine/support.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

using namespace mooncake;
using namespace mooncake::test;

namespace {

/** Accepts connections by its backlog and never says a word. */
class BlackHole {
 public:
  BlackHole() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(fd_, any, length) == 0 && ::listen(fd_, 64) == 0 && ::getsockname(fd_, any, &length) == 0) {
      port_ = ntohs(address.sin_port);
    }
  }
  ~BlackHole() { ::close(fd_); }
  BlackHole(const BlackHole&) = delete;
  BlackHole& operator=(const BlackHole&) = delete;

  PeerEndpoint endpoint() const { return {"tcp", {{"host", "127.0.0.1"}, {"port", std::to_string(port_)}, {"framing", "stock2"}}}; }

 private:
  const int fd_;
  u16 port_ = 0;
};

constexpr u64 LENGTH = 64 << 10;

using Result = std::future<BatchResult>;

/** A read of all that the peer has. */
Result read(Engine& engine, u32 peer, u32 segment, int milliseconds, u64* number = nullptr) {
  auto promise = std::make_shared<std::promise<BatchResult>>();
  Result result = promise->get_future();
  BatchSpec spec;
  spec.op = Op::read;
  spec.peer = peer;
  spec.records = {{1, segment, 0, 0, LENGTH}};
  spec.deadline = soon(milliseconds);
  auto batch = engine.submit(std::move(spec), [promise](u64, BatchResult ended) { promise->set_value(std::move(ended)); });
  if (!batch.ok()) promise->set_value({std::move(batch.status)});
  if (number != nullptr) *number = batch.value;
  return result;
}

bool ends(const Result& result) { return result.wait_for(std::chrono::seconds(20)) == std::future_status::ready; }

}  // namespace

TEST(engine, deadlinesFireByItsOwnTimer) {
  const BlackHole hole;
  Engine engine({});
  Bytes bytes(engine, LENGTH);
  const u32 peer = engine.openPeer("hole", 0, {hole.endpoint()}).value;
  engine.setSegments(peer, {{1, 4096, LENGTH}});
  // The timer sleeps towards the late one when the early one comes.
  Result late = read(engine, peer, bytes.id, 3600000);
  Result early = read(engine, peer, bytes.id, 50);
  Result next = read(engine, peer, bytes.id, 150);
  REQUIRE(ends(early) && ends(next));
  CHECK(early.get().status.code == Code::timeout);
  CHECK(next.get().status.code == Code::timeout);
  CHECK(late.wait_for(std::chrono::seconds(0)) != std::future_status::ready);
  engine.closePeer(peer);
  REQUIRE(ends(late));
  CHECK(late.get().status.code == Code::closed);
}

TEST(engine, cancelledBatchesEndLongBeforeTheirDeadline) {
  const BlackHole hole;
  Engine engine({});
  Bytes bytes(engine, LENGTH);
  const u32 peer = engine.openPeer("hole", 0, {hole.endpoint()}).value;
  engine.setSegments(peer, {{1, 4096, LENGTH}});
  for (int i = 0; i < 20; i++) {
    u64 number = 0;
    Result result = read(engine, peer, bytes.id, 3600000, &number);
    if (i % 2 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    engine.cancel(number);
    REQUIRE(ends(result));
    CHECK(result.get().status.code == Code::aborted);
  }
}

/** Links stand on their transport's threads: a peer that is being closed while the engine is must be gone before them. */
TEST(engine, peersCloseBesideTheEngine) {
  for (int round = 0; round < 60; round++) {
    auto engine = std::make_shared<Engine>(EngineOptions{});
    const Expected<Settings> own = engine->listen("tcp", {});
    REQUIRE(own.ok());
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; i++) {
      const Expected<u32> peer = engine->openPeer("self", engine->generation(), {{"tcp", own.value}});
      REQUIRE(peer.ok());
      threads.emplace_back([engine, number = peer.value] { engine->closePeer(number); });
    }
    for (int i = 0; i < 2; i++) threads.emplace_back([engine] { engine->close(); });
    threads.emplace_back([engine, &own] {
      const Expected<u32> peer = engine->openPeer("late", engine->generation(), {{"tcp", own.value}});
      CHECK(peer.ok() || peer.status.code == Code::closed);
    });
    for (std::thread& thread : threads) thread.join();
    CHECK(engine->openPeer("later", 1, {{"tcp", own.value}}).status.code == Code::closed);
    CHECK(engine->listen("tcp", {}).status.code == Code::closed);
  }
}
