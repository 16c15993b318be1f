// Peers that answer what they were not asked, strangers in numbers, and memory that the kernel cannot read.
#include "test/tcp/support.h"
#include "transport/tcp/frames.h"
#include "transport/tcp/stock.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <thread>

using namespace mooncake;
using namespace mooncake::test;
using namespace mooncake::tcp;
using namespace std::chrono_literals;

TEST(tcpAbuse, dataBeforeItsRequest) {
  PlainListener listener;
  std::vector<u8> local(16 << 20);
  std::unique_ptr<Plain> peer;
  std::thread greeter([&] {
    peer = std::make_unique<Plain>(listener.accept());
    std::vector<u8> hello(HELLO_BYTES);
    writeHello(hello.data(), {VERSION, 0, 1});
    if (peer->receive(HELLO_BYTES).size() == HELLO_BYTES) peer->send(hello);
  });
  Client client(listener.port(), {{"streams", "1"}}, 1);
  greeter.join();
  const u32 id = client.end.add(local);
  client.peer.setSegment({1, 0, local.size()});
  // A write that the peer does not take, behind which a read waits that is answered before it was sent, and then given up.
  client.post(Op::write, {{id, 1, 0, 0, local.size()}}, false, local.size());
  Batch& read = client.post(Op::read, {{1, id, 0, 0, 1 << 20}}, false);
  std::vector<u8> answer(FRAME_BYTES);
  writeFrame(answer.data(), {FrameType::data, false, Code::ok, 2, 0, 1 << 20});
  answer.resize(answer.size() + 1000, 7);
  peer->send(answer);
  std::this_thread::sleep_for(100ms);
  client.links[0]->cancel(read);
  peer->send(std::vector<u8>(1 << 20, 9));
  REQUIRE(client.recorder.wait(2));
  for (const auto& entry : client.recorder.entries()) CHECK(!entry.status.ok());
}

TEST(tcpAbuse, memoryThatCannotBeRead) {
  std::vector<u8> remote(1 << 20);
  End server(1);
  const u32 remoteId = server.add(remote);
  Client client(server.listen(), {{"streams", "1"}}, 1);
  client.peer.setSegment({remoteId, 0, remote.size()});
  void* const nothing = ::mmap(nullptr, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  Segment segment;
  segment.base = static_cast<u8*>(nothing);
  segment.length = 1 << 20;
  const u32 id = client.end.memory.add(segment, nullptr).value;
  // It fails, and does not wait for its deadline; what comes next is not held up either.
  CHECK(client.move(Op::write, {{id, remoteId, 0, 0, 1 << 20}}, false).code == Code::peer);
  std::vector<u8> good = pattern(4096, 1);
  const u32 goodId = client.end.add(good);
  for (int i = 0; i < 1000 && client.links[0]->state() != LinkState::up; i++) std::this_thread::sleep_for(5ms);
  CHECK(client.move(Op::write, {{goodId, remoteId, 0, 0, 4096}}).ok());
  ::munmap(nothing, 1 << 20);
}

TEST(tcpAbuse, strangersLeaveDescriptors) {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit few{100, before.rlim_max};
  std::vector<u8> bytes(64);
  End server(1);
  server.add(bytes);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
  const u16 port = server.listen();
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  std::vector<u8> request(STOCK_REQUEST_BYTES);
  writeStockRequest(request.data(), {1, reinterpret_cast<u64>(bytes.data()), false, true});
  // Half of them at most are connections of others.
  std::vector<Plain> strangers;
  for (int i = 0; i < 50; i++) {
    strangers.emplace_back(port);
    CHECK(strangers.back().send(request) && strangers.back().receive(9).size() == 9);
  }
  Plain refused(port);
  refused.send(request);
  CHECK(refused.receive(9).empty());
  // When one has gone, another may come.
  strangers.pop_back();
  bool served = false;
  for (int i = 0; i < 500 && !served; i++) {
    Plain next(port);
    served = next.send(request) && next.receive(9).size() == 9;
    if (!served) std::this_thread::sleep_for(10ms);
  }
  CHECK(served);
}

TEST(tcpAbuse, handshakesThatNobodyAnswers) {
  End server(1);
  server.context.handshake = [](u8, std::string, std::function<void(std::string)> reply) {
    std::thread([=] { reply(""); }).detach();
  };
  Plain peer(server.listen());
  const std::string text = handshakeFrame({0, true, "{\"a\":1}" + std::string(40, ' ')});
  REQUIRE(peer.send(text.data(), text.size()));
  CHECK(peer.closed());
}
