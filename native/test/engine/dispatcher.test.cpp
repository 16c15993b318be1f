#include "test/check.h"
#include "test/engine/fake_link.h"

#include <thread>

using namespace mooncake;
using namespace mooncake::test;

namespace {

constexpr u64 MIB = Fixture::MIB;

}  // namespace

TEST(dispatcher, reportsWhatWasMoved) {
  Fixture fix;
  fix.use();
  const auto batch = fix.start(3 * MIB + 5);
  CHECK(fix.links[0]->kept() == 4);
  for (int i = 0; i < 3; i++) CHECK(fix.links[0]->settleOne());
  CHECK(!batch->over());
  CHECK(fix.links[0]->settleOne());
  REQUIRE(batch->over());
  CHECK(batch->result->status.ok());
  CHECK(batch->result->bytes == 3 * MIB + 5);
  CHECK(batch->result->verifiedBytes == 3 * MIB + 5);
  CHECK(fix.links[0]->stats.slices == 4);
  CHECK(fix.links[0]->stats.bytes == 3 * MIB + 5);
  CHECK(fix.links[0]->stats.inFlightBytes == 0);
  CHECK(fix.ended == 1);
}

TEST(dispatcher, keepsToTheWindow) {
  Fixture fix;
  fix.links[0]->can.windowBytes = 4 * MIB;
  fix.use();
  const auto batch = fix.start(10 * MIB);
  for (u64 left = 10; left > 0; left--) {
    CHECK(fix.links[0]->kept() == std::min<u64>(left, 4));
    CHECK(fix.links[0]->settleOne());
  }
  CHECK(batch->over());
}

TEST(dispatcher, anIdleLinkTakesASliceLargerThanItsWindow) {
  Fixture fix;
  fix.links[0]->can.windowBytes = 1000;
  fix.use();
  const auto batch = fix.start(2 * MIB);
  CHECK(fix.links[0]->kept() == 1);
  CHECK(fix.links[0]->settleOne() && fix.links[0]->settleOne());
  CHECK(batch->over());
}

TEST(dispatcher, batchesTakeTurns) {
  Fixture fix;
  fix.links[0]->can.windowBytes = MIB;
  fix.use();
  const auto large = fix.start(100 * MIB);
  const auto other = fix.start(4 * MIB);
  for (int i = 0; i < 10; i++) fix.links[0]->settleOne();
  CHECK(other->over());
  CHECK(!large->over());
  while (fix.links[0]->settleOne()) {
  }
  CHECK(large->over());
}

TEST(dispatcher, aFailedSliceGoesToAnotherLink) {
  for (const Code code : {Code::peer, Code::system, Code::timeout, Code::closed, Code::notSupported, Code::outOfMemory}) {
    Fixture fix(2);
    fix.links[0]->answer = code;
    fix.use();
    const auto batch = fix.start(MIB);
    CHECK(!batch->over());
    CHECK(fix.links[0]->posted == 1);
    CHECK(fix.links[0]->stats.failures == 1);
    CHECK(fix.links[1]->settleOne());
    REQUIRE(batch->over());
    CHECK(batch->result->status.ok());
    CHECK(batch->result->bytes == MIB);
  }
}

TEST(dispatcher, thenToTheNextRank) {
  Fixture fix(3);
  fix.links[0]->can.rank = 3;
  fix.links[1]->can.rank = 1;
  fix.links[1]->answer = Code::system;
  fix.links[2]->can.rank = 2;
  fix.use();
  const auto batch = fix.start(MIB);
  CHECK(fix.links[1]->posted == 1);
  CHECK(fix.links[2]->kept() == 1);
  CHECK(fix.links[2]->settleOne(Code::timeout));
  CHECK(fix.links[0]->kept() == 1);
  CHECK(fix.links[0]->settleOne());
  CHECK(batch->over() && batch->code() == Code::ok);
}

TEST(dispatcher, endsWhenEveryLinkFailedASlice) {
  Fixture fix(3);
  for (FakeLink* link : fix.links) link->answer = Code::system;
  fix.use();
  const auto batch = fix.start(MIB);
  REQUIRE(batch->over());
  CHECK(batch->code() == Code::system);
  for (FakeLink* link : fix.links) CHECK(link->posted == 1);
}

TEST(dispatcher, endsWithPeerWhenAllLinksAreDown) {
  Fixture fix(2);
  fix.use();
  for (FakeLink* link : fix.links) link->become(LinkState::down);
  const auto batch = fix.start(MIB);
  REQUIRE(batch->over());
  CHECK(batch->code() == Code::peer);
  CHECK(batch->result->status.detail == "no link to peer is left: fake1 broke");
}

TEST(dispatcher, waitsWhileALinkConnects) {
  Fixture fix(2);
  for (FakeLink* link : fix.links) link->become(LinkState::connecting);
  fix.use();
  const auto first = fix.start(MIB);
  CHECK(!first->over());
  fix.links[0]->become(LinkState::down);
  fix.dispatcher->pump();
  CHECK(!first->over());
  fix.links[1]->become(LinkState::up);
  fix.dispatcher->pump();
  CHECK(fix.links[1]->settleOne());
  CHECK(first->over() && first->code() == Code::ok);
  fix.links[1]->become(LinkState::connecting);
  const auto second = fix.start(MIB);
  fix.links[1]->become(LinkState::down);
  fix.dispatcher->pump();
  CHECK(second->over() && second->code() == Code::peer);
}

TEST(dispatcher, fatalFailuresEndTheBatchWhenItsSlicesAreBack) {
  for (const Code code : {Code::segment, Code::invalidArgument, Code::protocol}) {
    Fixture fix(2);
    fix.use();
    const auto batch = fix.start(4 * MIB);
    const size_t others = fix.links[0]->kept() + fix.links[1]->kept() - 1;
    CHECK(fix.links[0]->settleOne(code));
    for (size_t i = 0; i < others; i++) {
      CHECK(!batch->over());
      CHECK(fix.links[0]->settleOne() || fix.links[1]->settleOne());
    }
    REQUIRE(batch->over());
    CHECK(batch->code() == code);
    CHECK(!fix.links[0]->settleOne() && !fix.links[1]->settleOne());
  }
}

TEST(dispatcher, corruptIsTriedOnceMoreElsewhere) {
  Fixture fix(3);
  fix.links[0]->answer = Code::corrupt;
  fix.links[1]->can.rank = fix.links[2]->can.rank = 1;
  fix.use();
  const auto mended = fix.start(MIB);
  CHECK(fix.links[1]->settleOne() || fix.links[2]->settleOne());
  CHECK(mended->over() && mended->code() == Code::ok);
  const auto wrong = fix.start(MIB);
  CHECK(fix.links[1]->settleOne(Code::corrupt) || fix.links[2]->settleOne(Code::corrupt));
  CHECK(wrong->over() && wrong->code() == Code::corrupt);
}

TEST(dispatcher, corruptWithoutAnotherLinkEndsTheBatch) {
  Fixture fix;
  fix.links[0]->answer = Code::corrupt;
  fix.use();
  const auto batch = fix.start(MIB);
  CHECK(batch->over() && batch->code() == Code::corrupt);
}

TEST(dispatcher, verifiedBatchesAvoidLinksThatCannot) {
  Fixture fix(2);
  fix.links[0]->can.verify = false;
  fix.links[1]->can.rank = 5;
  fix.use();
  const auto verified = fix.start(MIB);
  CHECK(fix.links[1]->settleOne());
  CHECK(verified->over() && verified->result->verifiedBytes == MIB);
  const auto plain = fix.start(MIB, Clock::time_point::max(), false);
  CHECK(fix.links[0]->settleOne());
  CHECK(plain->over());
  // The one that can is gone: bytes that nobody compared are not what was asked for.
  fix.links[1]->become(LinkState::down);
  const auto doubtful = fix.start(MIB);
  CHECK(doubtful->over() && doubtful->code() != Code::ok);
}

TEST(dispatcher, unverifiedWherePeerHasNoLinkThatCan) {
  Fixture fix;
  fix.links[0]->can.verify = false;
  fix.use();
  const auto batch = fix.start(MIB);
  CHECK(fix.links[0]->settleOne());
  REQUIRE(batch->over());
  CHECK(batch->code() == Code::ok && batch->result->bytes == MIB && batch->result->verifiedBytes == 0);
}

TEST(dispatcher, aBatchThatNoLinkCanCarryIsNotSupported) {
  Fixture fix;
  fix.links[0]->can.read = false;
  fix.use();
  CHECK(fix.start(MIB)->code() == Code::notSupported);
  Fixture blind;
  blind.links[0]->reaching = false;
  blind.use();
  CHECK(blind.start(MIB)->code() == Code::notSupported);
}

TEST(dispatcher, deadlineWaitsForWhatTouchesMemory) {
  Fixture fix;
  fix.links[0]->obedient = false;
  fix.use();
  const Clock::time_point deadline = Clock::now();
  const auto batch = fix.start(3 * MIB, deadline);
  const auto other = fix.start(MIB, deadline + std::chrono::hours(1));
  CHECK(fix.links[0]->settleOne());
  const Clock::time_point again = fix.dispatcher->expire(deadline + std::chrono::milliseconds(1));
  CHECK(fix.links[0]->cancels == 1);
  CHECK(!batch->over());
  // A link that lost the first call is asked again, before the other batch's deadline.
  CHECK(again < deadline + std::chrono::seconds(1));
  fix.dispatcher->expire(again);
  CHECK(fix.links[0]->cancels == 2);
  CHECK(fix.links[0]->settleOne() && !batch->over());
  CHECK(fix.links[0]->settleOne());
  REQUIRE(batch->over());
  CHECK(batch->code() == Code::timeout);
  CHECK(batch->result->bytes == 3 * MIB);
  CHECK(!other->over());
  CHECK(fix.dispatcher->expire(again) == deadline + std::chrono::hours(1));
}

TEST(dispatcher, deadlineOfABatchThatNeverGotALink) {
  Fixture fix;
  fix.links[0]->become(LinkState::connecting);
  fix.use();
  const auto batch = fix.start(MIB, Clock::now());
  CHECK(fix.dispatcher->expire(Clock::now()) == Clock::time_point::max());
  CHECK(batch->over() && batch->code() == Code::timeout);
  CHECK(fix.links[0]->posted == 0);
}

/** The slice may come to the link after the call that it be let go of. */
TEST(dispatcher, cancelComesAgain) {
  Fixture fix;
  fix.links[0]->obedient = false;
  fix.use();
  u64 number = 0;
  const auto batch = fix.start(MIB, Clock::time_point::max(), true, &number);
  CHECK(fix.visit.load() == Clock::time_point{});
  CHECK(fix.dispatcher->cancel(number, {Code::aborted, "no longer wanted"}));
  const Clock::time_point again = fix.visit;
  CHECK(again > Clock::time_point{} && again < Clock::now() + std::chrono::seconds(1));
  fix.links[0]->obedient = true;
  fix.dispatcher->expire(again);
  CHECK(batch->over() && batch->code() == Code::aborted);
}

/** Batches that wait for one link, more than one look passes over, and behind them one that another link can take. */
TEST(dispatcher, aHungLinkHoldsUpNobodyElse) {
  Fixture fix(2);
  fix.links[0]->answer = Code::system;
  for (FakeLink* link : fix.links) link->can.windowBytes = MIB;
  fix.use();
  std::vector<Fixture::OutcomePointer> stuck;
  for (int i = 0; i < 40; i++) stuck.push_back(fix.start(MIB));
  CHECK(fix.links[0]->posted == 40);
  REQUIRE(fix.links[1]->kept() == 1);
  fix.links[0]->answer.reset();
  const auto batch = fix.start(2 * MIB);
  REQUIRE(fix.links[0]->kept() == 1);
  CHECK(fix.links[0]->settleOne());
  for (int visits = 0; visits < 5 && fix.links[0]->kept() == 0 && !batch->over(); visits++) {
    CHECK(fix.visit.load() > Clock::time_point{});
    fix.dispatcher->lookAtAll();
  }
  CHECK(fix.links[0]->settleOne());
  CHECK(batch->over() && batch->code() == Code::ok);
}

/** The fast link has its window and settles nothing: the dispatcher looks again, and the slow one gets what waits. */
TEST(dispatcher, whatWaitsForAHungFastLinkGoesToASlowOne) {
  for (;;) {
    Fixture fix(2);
    fix.links[0]->can.bandwidth = 100e9;
    fix.links[0]->can.windowBytes = MIB;
    fix.links[1]->can.bandwidth = 1e9;
    fix.links[1]->answer = Code::ok;
    fix.use();
    const Clock::time_point began = Clock::now();
    const auto first = fix.start(MIB);
    const auto second = fix.start(MIB);
    // On a machine that paused in between, the fast link counts as hung already: once more.
    if (Clock::now() - began > std::chrono::milliseconds(10)) continue;
    CHECK(fix.links[0]->kept() == 1 && fix.links[1]->posted == 0);
    CHECK(fix.visit.load() > began);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    fix.dispatcher->expire(Clock::now());
    fix.dispatcher->lookAtAll();
    CHECK(second->over() && second->code() == Code::ok && fix.links[1]->posted == 1);
    CHECK(!first->over());
    return;
  }
}

TEST(dispatcher, cancelEndsWithAborted) {
  Fixture fix;
  fix.links[0]->can.windowBytes = 2 * MIB;
  fix.use();
  u64 number = 0;
  const auto batch = fix.start(10 * MIB, Clock::time_point::max(), true, &number);
  const auto other = fix.start(MIB);
  CHECK(fix.dispatcher->cancel(number, {Code::aborted, "no longer wanted"}));
  CHECK(batch->over() && batch->code() == Code::aborted);
  CHECK(!fix.dispatcher->cancel(number, {Code::aborted, "no longer wanted"}));
  CHECK(fix.links[0]->settleOne() && other->over());
}

TEST(dispatcher, closeReportsEverything) {
  Fixture fix(2);
  fix.links[1]->become(LinkState::connecting);
  fix.use();
  std::vector<Fixture::OutcomePointer> batches;
  for (int i = 0; i < 40; i++) batches.push_back(fix.start(MIB));
  fix.dispatcher->close({Code::closed, "gone"});
  for (const auto& batch : batches) CHECK(batch->over() && batch->code() == Code::closed);
  CHECK(fix.start(MIB)->code() == Code::closed);
}

/** Settling within post leads to the next post: a thousand slices must not be a thousand frames. */
TEST(dispatcher, linksThatSettleAtOnceDoNotRecurse) {
  Fixture fix;
  fix.links[0]->answer = Code::ok;
  fix.links[0]->can.sliceBytes = 4096;
  fix.links[0]->can.windowBytes = 4096;
  fix.use();
  const auto batch = fix.start(1 << 30);
  CHECK(batch->over() && batch->code() == Code::ok);
  CHECK(fix.links[0]->posted == (1 << 18));
}

TEST(dispatcher, threadsThatSettleSubmitAndCancel) {
  Fixture fix(3);
  for (FakeLink* link : fix.links) link->can.windowBytes = 3 * MIB;
  fix.use();
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (FakeLink* link : fix.links) {
    threads.emplace_back([&, link] {
      for (u32 i = 0; !stop; i++) {
        if (!link->settleOne(i % 7 == 0 ? Code::system : Code::ok)) std::this_thread::yield();
      }
    });
  }
  std::vector<std::thread> users;
  std::atomic<u64> good{0};
  std::atomic<u64> all{0};
  for (int user = 0; user < 3; user++) {
    users.emplace_back([&] {
      for (int i = 0; i < 150; i++) {
        u64 number = 0;
        const auto batch = fix.start((1 + i % 5) * MIB, Clock::time_point::max(), true, &number);
        if (i % 3 == 0) fix.dispatcher->cancel(number, {Code::aborted, "cancelled"});
        while (!batch->over()) fix.dispatcher->expire(Clock::now());
        all++;
        if (batch->result->status.ok()) good += batch->result->bytes == (1 + i % 5) * MIB ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : users) thread.join();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(all == 450 && fix.ended == 450);
  CHECK(good > 0);
}
