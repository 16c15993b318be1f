#include "test/rdma/support.h"

#include <cstring>

namespace mooncake::test {

namespace {

constexpr u64 SIZE = 16 << 20;

/** Bytes of both sides, announced. */
struct Moves {
  explicit Moves(Pair& of) : pair(of), ours(of.a.engine, SIZE), theirs(of.b.engine, SIZE) {
    ours.fill(7);
    pair.a.engine.setSegments(pair.peer, {pair.b.announced(theirs)});
  }
  BatchResult write(int milliseconds = 20000, bool verify = true) {
    return pair.move(Op::write, {{ours.id, theirs.id, 0, 0, SIZE}}, milliseconds, verify);
  }
  bool same() const { return ours.data == theirs.data; }

  Pair& pair;
  Bytes ours;
  Bytes theirs;
};

}  // namespace

TEST(rdma_faults, a_rail_that_fails_in_mid_batch_is_replaced_by_the_others) {
  for (const ibv_wc_status failure : {IBV_WC_RETRY_EXC_ERR, IBV_WC_REM_OP_ERR, IBV_WC_LOC_QP_OP_ERR}) {
    Pair pair(3, 3);
    Moves moves(pair);
    REQUIRE(pair.await(3));
    pair.a.verbs->set(1, [&](NullDevice& device) {
      device.failAfter = 1 << 20;
      device.failure = failure;
    });
    CHECK(moves.write().status.ok());
    CHECK(moves.same());
    pair.a.verbs->set(1, [](NullDevice& device) { device.failAfter = -1; });
    // After its cool-down it is back.
    CHECK(pair.await(3));
  }
}

TEST(rdma_faults, a_device_that_takes_a_part_of_what_it_is_given_has_that_part_alone) {
  // A whole number of slices, and the midst of one: of 16 requests each.
  for (const int taken : {0, 48, 53}) {
    Pair pair(2, 2);
    Moves moves(pair);
    REQUIRE(pair.await(2));
    std::vector<Record> records;
    constexpr u64 PIECE = 16 << 10;
    for (u64 at = 0; at < SIZE; at += PIECE) records.push_back({moves.ours.id, moves.theirs.id, at, at, PIECE});
    pair.a.verbs->set(0, [&](NullDevice& device) { device.refusesAfter = taken; });
    const BatchResult result = pair.move(Op::write, records);
    CHECK(result.status.ok() && result.bytes == SIZE);
    CHECK(moves.same());
    CHECK(pair.await(2));
  }
}

TEST(rdma_faults, a_rail_that_goes_silent_is_taken_out) {
  Pair pair(2, 2, {{"stallMs", "150"}});
  Moves moves(pair);
  REQUIRE(pair.await(2));
  pair.a.verbs->set(0, [](NullDevice& device) { device.silent = true; });
  CHECK(moves.write().status.ok());
  CHECK(moves.same());
  CHECK(pair.alive() == 1);
  pair.a.verbs->set(0, [](NullDevice& device) { device.silent = false; });
  CHECK(pair.await(2));
}

TEST(rdma_faults, a_port_that_loses_its_link_says_so_at_once) {
  Pair pair(2, 2, {{"stallMs", "60000"}});
  Moves moves(pair);
  REQUIRE(pair.await(2));
  // Nothing would complete for a minute: it is the event that tells.
  pair.a.verbs->set(0, [](NullDevice& device) { device.silent = true; });
  pair.a.verbs->link(0, false);
  CHECK(moves.write().status.ok());
  CHECK(moves.same());
  pair.a.verbs->set(0, [](NullDevice& device) { device.silent = false; });
  pair.a.verbs->link(0, true);
  CHECK(pair.await(2));
}

TEST(rdma_faults, with_all_rails_down_a_batch_ends_with_the_reason_and_the_next_succeeds) {
  Pair pair(2, 2);
  Moves moves(pair);
  REQUIRE(pair.await(2));
  pair.b.verbs->link(0, false);
  pair.b.verbs->link(1, false);
  const BatchResult result = moves.write();
  CHECK(result.status.code == Code::peer);
  CHECK(result.status.detail.find("null") != std::string::npos);
  pair.b.verbs->link(0, true);
  pair.b.verbs->link(1, true);
  REQUIRE(pair.await(2));
  CHECK(moves.write().status.ok());
  CHECK(moves.same());
}

TEST(rdma_faults, bytes_that_a_rail_spoils_are_found_and_sent_again) {
  Pair pair(2, 2);
  Moves moves(pair);
  REQUIRE(pair.await(2));
  pair.a.verbs->set(1, [](NullDevice& device) { device.corrupts = true; });
  const BatchResult result = moves.write();
  CHECK(result.status.ok());
  CHECK(result.verifiedBytes == SIZE);
  CHECK(moves.same());
  // Where every rail spoils them, the batch says so.
  pair.a.verbs->set(0, [](NullDevice& device) { device.corrupts = true; });
  CHECK(moves.write().status.code == Code::corrupt);
}

TEST(rdma_faults, memory_that_one_nic_refuses_goes_over_the_others) {
  Pair pair(2, 2);
  REQUIRE(pair.await(2));
  pair.a.verbs->set(0, [](NullDevice& device) { device.refusesMemory = true; });
  pair.b.verbs->set(1, [](NullDevice& device) { device.refusesMemory = true; });
  Bytes alone(pair.b.engine, 4096);
  const auto keys = pair.b.engine.expose("rdma", alone.id);
  REQUIRE(keys.ok());
  CHECK(keys.value[0].remote != 0 && keys.value[1].remote == 0);
  CHECK(keys.value[0].refusal.empty() && keys.value[1].refusal.find("null1") != std::string::npos);
  // The rail to NIC 1 cannot reach it, and does not break for it: that to NIC 0 does it all.
  pair.a.verbs->set(0, [](NullDevice& device) { device.refusesMemory = false; });
  {
    Moves moves(pair);
    CHECK(moves.write().status.ok());
    CHECK(moves.same());
    CHECK(pair.handshakes == 2);
  }
  pair.a.verbs->set(0, [](NullDevice& device) { device.refusesMemory = true; });
  pair.b.verbs->set(1, [](NullDevice& device) { device.refusesMemory = false; });
  Moves moves(pair);
  CHECK(moves.write().status.ok());
  CHECK(moves.same());
  pair.b.verbs->set(0, [](NullDevice& device) { device.refusesMemory = true; });
  pair.b.verbs->set(1, [](NullDevice& device) { device.refusesMemory = true; });
  Bytes nowhere(pair.b.engine, 4096);
  const auto none = pair.b.engine.expose("rdma", nowhere.id);
  CHECK(none.status.code == Code::system);
  CHECK(none.status.detail.find("null0") != std::string::npos && none.status.detail.find("ulimit -l") != std::string::npos);
}

TEST(rdma_faults, a_segment_that_was_taken_away_is_written_no_more) {
  Pair pair(1, 1);
  Bytes ours(pair.a.engine, 1 << 20);
  ours.fill(1);
  RemoteSegment gone;
  std::vector<u8> before;
  {
    Bytes theirs(pair.b.engine, 1 << 20);
    gone = pair.b.announced(theirs);
    pair.a.engine.setSegments(pair.peer, {gone});
    REQUIRE(pair.await(1));
    CHECK(pair.move(Op::write, {{ours.id, gone.id, 0, 0, 1 << 20}}).status.ok());
    REQUIRE(pair.b.engine.memory().hold(theirs.id));
  }
  const BatchResult result = pair.move(Op::write, {{ours.id, gone.id, 0, 0, 1 << 20}});
  CHECK(!result.status.ok());
  CHECK(pair.await(1));
}

TEST(rdma_faults, sides_of_unlike_mtu_use_the_smaller_one) {
  Pair pair(1, 1);
  Moves moves(pair);
  REQUIRE(pair.await(1));
  CHECK(pair.a.engine.statistics().find("MTU 4096") != std::string::npos);
  // The network is changed under it: what is longer is lost.
  pair.b.verbs->set(0, [](NullDevice& device) {
    device.mtu = IBV_MTU_1024;
    device.carries = 1024;
  });
  CHECK(!moves.write().status.ok());
  REQUIRE(pair.await(1));
  CHECK(moves.write().status.ok());
  CHECK(moves.same());
  CHECK(pair.a.engine.statistics().find("MTU 1024") != std::string::npos);
}

TEST(rdma_faults, a_network_that_loses_long_packets_is_found_out) {
  Pair pair(1, 1);
  Moves moves(pair);
  REQUIRE(pair.await(1));
  // Both ports have 4096, and what lies between them does not carry it.
  pair.b.verbs->set(0, [](NullDevice& device) { device.carries = 1500; });
  const Status status = moves.write().status;
  CHECK(status.code == Code::peer && status.detail.find("retries exceeded") != std::string::npos);
  std::string seen;
  for (const auto until = soon(); pair.alive() == 0 && Clock::now() < until;) {
    if (const std::string text = pair.a.engine.statistics(); text.find("do not: the network") != std::string::npos) seen = text;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  CHECK(seen.find("a:1@null0 to b:1@null0: short packets arrive") != std::string::npos);
  CHECK(moves.write().status.ok());
  CHECK(moves.same());
  CHECK(pair.a.engine.statistics().find("MTU 1024") != std::string::npos);
}

TEST(rdma_faults, longer_packets_are_used_again_when_they_arrive) {
  Pair pair(1, 1, {{"raiseMs", "20"}});
  Moves moves(pair);
  REQUIRE(pair.await(1));
  const auto uses = [&](const char* mtu) {
    return pair.a.engine.statistics().find(std::string("\"detail\":\"MTU ") + mtu + "\"") != std::string::npos;
  };
  const auto comesToUse = [&](const char* mtu) {
    for (const auto until = soon(); !uses(mtu) && Clock::now() < until;) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return uses(mtu);
  };
  // In the network, at the peer's port, at ours.
  const std::function<void(bool)> ways[] = {
      [&](bool less) { pair.b.verbs->set(0, [&](NullDevice& device) { device.carries = less ? 1500 : 4096; }); },
      [&](bool less) {
        pair.b.verbs->set(0, [&](NullDevice& device) {
          device.mtu = less ? IBV_MTU_1024 : IBV_MTU_4096;
          device.carries = less ? 1024 : 4096;
        });
      },
      [&](bool less) {
        pair.a.verbs->set(0, [&](NullDevice& device) { device.mtu = less ? IBV_MTU_1024 : IBV_MTU_4096; });
        if (less) pair.b.verbs->set(0, [](NullDevice& device) { device.carries = 1024; });
        if (!less) pair.b.verbs->set(0, [](NullDevice& device) { device.carries = 4096; });
      },
  };
  for (const auto& way : ways) {
    way(true);
    CHECK(!moves.write().status.ok());
    REQUIRE(comesToUse("1024"));
    CHECK(moves.write().status.ok());
    way(false);
    // Nothing fails meanwhile.
    for (const auto until = soon(); !uses("4096") && Clock::now() < until;) CHECK(moves.write().status.ok());
    REQUIRE(comesToUse("4096"));
    CHECK(moves.write().status.ok());
    CHECK(moves.same());
  }
}

TEST(rdma_faults, a_stock_peer_of_another_mtu_is_named_with_the_cause) {
  Pair pair(1, 1, {{"protocol", "stock"}});
  Moves moves(pair);
  REQUIRE(pair.await(1));
  pair.b.verbs->set(0, [](NullDevice& device) { device.mtu = IBV_MTU_1024; });
  pair.alter = [](Settings& said) { said.erase("ts_mtu"); };
  pair.b.verbs->link(0, false);
  CHECK(!moves.write().status.ok());
  pair.b.verbs->link(0, true);
  REQUIRE(pair.await(1));
  const Status status = moves.write(20000, false).status;
  CHECK(status.code == Code::peer && status.detail.find("null0") != std::string::npos);
  CHECK(status.detail.find("MTU here is 4096") != std::string::npos);
}

TEST(rdma_faults, what_may_be_read_alone_is_not_written) {
  Pair pair(1, 1);
  Bytes ours(pair.a.engine, 1 << 20);
  Bytes theirs(pair.b.engine, 1 << 20, false);
  theirs.fill(3);
  RemoteSegment announced = pair.b.announced(theirs);
  announced.writable = false;
  pair.a.engine.setSegments(pair.peer, {announced});
  REQUIRE(pair.await(1));
  const BatchResult result = pair.move(Op::write, {{ours.id, theirs.id, 0, 0, 1 << 20}});
  CHECK(result.status.code == Code::segment && result.status.detail.find("read, not written") != std::string::npos);
  CHECK(pair.move(Op::read, {{theirs.id, ours.id, 0, 0, 1 << 20}}).status.ok());
  CHECK(ours.data == theirs.data);
  CHECK(pair.handshakes == 1);
}

TEST(rdma_faults, a_request_that_the_peer_refuses_ends_its_batch_and_no_other) {
  for (int i = 0; i < 3; i++) {
    Pair pair(1, 1);
    Moves moves(pair);
    Bytes forbidden(pair.b.engine, SIZE, false);
    // Its owner does not say so, as Mooncake's engines do not.
    pair.a.engine.setSegments(pair.peer, {pair.b.announced(moves.theirs), pair.b.announced(forbidden)});
    REQUIRE(pair.await(1));
    pair.a.verbs->set(0, [](NullDevice& device) { device.rate = 200e6; });
    std::promise<BatchResult> done;
    const BatchSpec other = pair.spec(Op::write, {{moves.ours.id, moves.theirs.id, 0, 0, SIZE}});
    REQUIRE(pair.a.engine.submit(other, [&](u64, BatchResult result) { done.set_value(std::move(result)); }).ok());
    const BatchResult result = pair.move(Op::write, {{moves.ours.id, forbidden.id, 0, 0, SIZE}});
    CHECK(result.status.code == Code::segment);
    CHECK(result.status.detail.find("b:1@null") != std::string::npos);
    const BatchResult good = done.get_future().get();
    CHECK(good.status.ok() && good.verifiedBytes == SIZE);
    CHECK(moves.same());
    // The other batch may have been over before: then nobody has waited for the new connection yet.
    REQUIRE(pair.await(1));
    CHECK(pair.handshakes > 1);
    CHECK(std::all_of(forbidden.data.begin(), forbidden.data.end(), [](u8 byte) { return byte == 0; }));
  }
}

TEST(rdma_faults, a_batch_past_its_deadline_ends_and_touches_nothing_more) {
  Pair pair(1, 1, {{"stallMs", "60000"}});
  Moves moves(pair);
  REQUIRE(pair.await(1));
  pair.a.verbs->set(0, [](NullDevice& device) { device.silent = true; });
  const BatchResult result = moves.write(100);
  CHECK(result.status.code == Code::timeout);
  // The queue pairs that had it are gone: nothing is written when the device wakes up.
  moves.ours.fill(8);
  const std::vector<u8> then = moves.theirs.data;
  pair.a.verbs->set(0, [](NullDevice& device) { device.silent = false; });
  REQUIRE(pair.await(1));
  CHECK(moves.theirs.data == then);
  CHECK(moves.write().status.ok());
  CHECK(moves.same());
}

TEST(rdma_faults, a_batch_that_is_given_up_ends_no_other) {
  Pair pair(2, 2, {{"stallMs", "60000"}});
  Moves moves(pair);
  REQUIRE(pair.await(2));
  pair.a.verbs->set(0, [](NullDevice& device) { device.silent = true; });
  std::promise<BatchResult> done;
  // Less than a link's window, so that the next batch has some on the silent rail too.
  const BatchSpec other = pair.spec(Op::write, {{moves.ours.id, moves.theirs.id, 0, 0, 2 << 20}});
  REQUIRE(pair.a.engine.submit(other, [&](u64, BatchResult result) { done.set_value(std::move(result)); }).ok());
  // Time enough for a slow processor to be done with all that the other rail has of it.
  CHECK(moves.write(2000).status.code == Code::timeout);
  CHECK(done.get_future().get().status.ok());
  CHECK(std::memcmp(moves.ours.data.data(), moves.theirs.data.data(), 2 << 20) == 0);
}

TEST(rdma_faults, an_engine_may_close_while_peers_ask_for_sums) {
  for (int i = 0; i < 20; i++) {
    Pair pair(2, 2);
    Moves moves(pair);
    REQUIRE(pair.await(2));
    std::promise<BatchResult> done;
    const BatchSpec spec = pair.spec(Op::write, {{moves.ours.id, moves.theirs.id, 0, 0, SIZE}});
    REQUIRE(pair.a.engine.submit(spec, [&](u64, BatchResult result) { done.set_value(std::move(result)); }).ok());
    pair.b.engine.close();
    pair.a.engine.close();
    static_cast<void>(done.get_future().get());
    CHECK(pair.b.verbs->idle());
  }
}

TEST(rdma_faults, sums_that_the_peer_does_not_send_break_the_rail) {
  Pair pair(2, 2, {{"stallMs", "150"}});
  Moves moves(pair);
  REQUIRE(pair.await(2));
  // What we ask and send arrives there, and what it answers stays.
  pair.b.verbs->set(0, [](NullDevice& device) { device.silent = true; });
  const BatchResult result = moves.write();
  CHECK(result.status.ok());
  CHECK(result.verifiedBytes == SIZE);
  CHECK(moves.same());
}

TEST(rdma_faults, a_peer_that_was_started_again_is_not_taken_for_the_old_one) {
  Pair pair(1, 1);
  Moves moves(pair);
  REQUIRE(pair.await(1));
  pair.alter = [](Settings& said) { said = {{"reply_msg", "b:1 was started again"}}; };
  pair.b.verbs->link(0, false);
  CHECK(moves.write().status.code == Code::peer);
  pair.b.verbs->link(0, true);
  CHECK(!pair.await(1, 400));
  CHECK(moves.write().status.detail.find("started again") != std::string::npos);
}

TEST(rdma_faults, answers_that_no_peer_gives_are_refused) {
  const std::vector<std::pair<const char*, const char*>> wrong = {
      {"qp_num", ""},       {"qp_num", "1,x"},  {"qp_num", "17"},       {"qp_num", "99999999,1,2"}, {"local_gid", "garbage"},
      {"local_gid", "00:"}, {"local_lid", "-1"}, {"local_nic_path", "c:1@null0"}, {"peer_nic_path", ""},      {"ts_mtu", "9"}};
  for (const auto& [key, value] : wrong) {
    Pair pair(1, 1);
    std::atomic<u32> answers{0};
    REQUIRE(pair.await(1));
    // From the second handshake on: nobody calls it yet.
    pair.alter = [&, name = key, text = value](Settings& said) {
      said[name] = text;
      answers++;
    };
    pair.b.verbs->link(0, false);
    pair.a.verbs->link(0, false);
    CHECK(pair.await(0));
    pair.b.verbs->link(0, true);
    pair.a.verbs->link(0, true);
    const auto until = soon(5000);
    while (answers == 0 && Clock::now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    CHECK(answers > 0);
    CHECK(pair.alive() == 0);
  }
}

TEST(rdma_faults, connections_leave_nothing_behind) {
  auto fabric = std::make_shared<NullFabric>();
  Host a(fabric, 1, "a:1");
  Host b(fabric, 1, "b:1");
  a.engine.onShake([&](const std::string&, Settings request, std::function<void(Expected<Settings>)> answer) {
    answer(b.engine.accept("rdma", request));
  });
  const auto pairs = [](Host& host) {
    size_t count = 0;
    host.verbs->set(0, [&](NullDevice& device) { count = device.pairs.size(); });
    return count;
  };
  Bytes ours(a.engine, 4096);
  Bytes theirs(b.engine, 4096);
  const RemoteSegment announced = b.announced(theirs);
  for (int i = 0; i < 200; i++) {
    const u32 peer = a.engine.openPeer("b:1", b.engine.generation(), {{"rdma", b.listening.value}}).value;
    a.engine.setSegments(peer, {announced});
    const BatchResult result = move(a.engine, {Op::write, peer, {{ours.id, theirs.id, 0, 0, 4096}}, soon(), true});
    CHECK(result.status.ok());
    a.engine.closePeer(peer);
    CHECK(pairs(a) == 0);
  }
  // The last that ended is swept with the next that comes.
  CHECK(pairs(b) <= 6);
}

}  // namespace mooncake::test
