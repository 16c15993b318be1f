#include "engine/chooser.h"

#include "engine/peer.h"
#include "test/check.h"
#include "test/engine/fake_link.h"

#include <cmath>
#include <functional>
#include <queue>

using namespace mooncake;
using namespace mooncake::test;

namespace {

constexpr u64 MIB = 1 << 20;
using Seconds = std::chrono::duration<double>;

/** Links of given bandwidths in simulated time; each moves its slices one after the other. */
class Simulation final : public LinkEvents {
 public:
  explicit Simulation(const std::vector<double>& bandwidths, u64 window) : real_(bandwidths), moved(bandwidths.size()) {
    for (size_t i = 0; i < real_.size(); i++) {
      auto link = std::make_unique<FakeLink>("link" + std::to_string(i), *this);
      link->number = static_cast<u32>(i);
      link->can.bandwidth = 1e9;
      link->can.windowBytes = window;
      rails.emplace_back("fake", std::move(link));
    }
    busyUntil_.resize(real_.size(), now);
  }

  /** Moves `count` slices as fast as the chooser lets them; how long that took. `halfway`: when half of them are under way. */
  double run(Batch& batch, u64 count, const std::function<void()>& halfway = {}) {
    const Clock::time_point began = now;
    Slice slice;
    slice.batch = &batch;
    slice.bytes = MIB;
    u64 left = count;
    while (left > 0 || !events_.empty()) {
      if (left > 0) {
        const Choice choice = choose(rails, slice, left * MIB, now);
        if (choice.verdict == Verdict::post) {
          const size_t i = static_cast<size_t>(choice.rail - rails.data());
          choice.rail->meter.posted(MIB, now);
          choice.rail->turn = ++turns_;
          busyUntil_[i] = std::max(busyUntil_[i], now) + std::chrono::duration_cast<Clock::duration>(Seconds(MIB / real_[i]));
          events_.push({busyUntil_[i], i});
          left--;
          if (left == count / 2 && halfway) halfway();
          continue;
        }
        REQUIRE(choice.verdict == Verdict::wait && !events_.empty());
      }
      const auto [when, i] = events_.top();
      events_.pop();
      now = when;
      moved[i] += MIB;
      rails[i].meter.settled(MIB, true, now);
    }
    return Seconds(now - began).count();
  }

  void settled(Slice&, Status, bool) override {}

  /** From now on, also for what is under way. */
  void slow(size_t link, double bandwidth) {
    const double factor = std::exchange(real_[link], bandwidth) / bandwidth;
    const auto later = [&](Clock::time_point when) {
      return now + std::chrono::duration_cast<Clock::duration>(std::max(Clock::duration{}, when - now) * factor);
    };
    decltype(events_) events;
    for (; !events_.empty(); events_.pop()) {
      const auto [when, i] = events_.top();
      events.push({i == link ? later(when) : when, i});
    }
    events_ = std::move(events);
    busyUntil_[link] = later(busyUntil_[link]);
  }

 private:
  u64 turns_ = 0;
  std::vector<double> real_;
  std::vector<Clock::time_point> busyUntil_;
  std::priority_queue<std::pair<Clock::time_point, size_t>, std::vector<std::pair<Clock::time_point, size_t>>, std::greater<>>
      events_;

 public:
  std::vector<Rail> rails;
  std::vector<u64> moved;
  Clock::time_point now{};
};

Batch readBatch() { return Batch(1, Op::read, true, Clock::time_point::max(), {}); }

}  // namespace

TEST(chooser, spraysByMeasuredBandwidth) {
  Simulation links({4e9, 2e9, 1e9, 1e9}, 8 * MIB);
  Batch batch = readBatch();
  links.run(batch, 2000);
  links.moved.assign(4, 0);
  links.run(batch, 8000);
  const double expected[] = {4000, 2000, 1000, 1000};
  for (size_t i = 0; i < 4; i++) {
    CHECK(std::abs(static_cast<double>(links.moved[i]) / MIB / expected[i] - 1) < 0.1);
    CHECK(std::abs(links.rails[i].meter.bandwidth() / (expected[i] * 1e6) - 1) < 0.1);
  }
}

TEST(chooser, linksThatTakeTurnsCarryTheSameWhateverTheirSpeed) {
  Simulation links({4e9, 2e9, 1e9, 1e9}, 8 * MIB);
  for (Rail& rail : links.rails) rail.can.inTurn = true;
  Batch batch = readBatch();
  const double seconds = links.run(batch, 8000);
  for (const u64 moved : links.moved) CHECK(moved == 2000 * MIB);
  // The slowest sets the pace.
  CHECK(std::abs(seconds / (2000 * MIB / 1e9) - 1) < 0.01);
  // One that cannot take it is passed over, a full one waited for.
  Slice slice;
  slice.batch = &batch;
  slice.bytes = MIB;
  links.rails[0].state = LinkState::down;
  const Choice choice = choose(links.rails, slice, MIB, links.now);
  REQUIRE(choice.verdict == Verdict::post && choice.rail == &links.rails[1]);
  for (int i = 0; i < 8; i++) links.rails[1].meter.posted(MIB, links.now);
  CHECK(choose(links.rails, slice, MIB, links.now).verdict == Verdict::wait);
}

TEST(chooser, linksThatTakeTurnsGiveWayToThoseOfABetterRank) {
  Simulation links({1e9, 1e9, 1e9}, 8 * MIB);
  for (size_t i = 0; i < 3; i++) {
    links.rails[i].can.inTurn = i > 0;
    links.rails[i].can.rank = i == 0 ? 3 : i == 1 ? 2 : 1;
  }
  Batch batch = readBatch();
  Slice slice;
  slice.batch = &batch;
  slice.bytes = MIB;
  const auto pick = [&] { return choose(links.rails, slice, MIB, links.now).rail - links.rails.data(); };
  CHECK(pick() == 2);
  links.rails[2].state = LinkState::down;
  CHECK(pick() == 1);
  links.rails[1].state = LinkState::down;
  CHECK(pick() == 0);
}

TEST(chooser, eightNicsOfWhichOneIsSlowedCarryWhatTheirLinksCan) {
  constexpr double NIC = 25e9;
  constexpr double SLOWED = 2.5e9;
  // 4.5 GiB, one batch after another; the NIC is slowed in the middle of the third.
  constexpr u64 SLICES = 4608;
  Simulation links(std::vector<double>(8, NIC), 4 * MIB);
  Batch batch = readBatch();
  double seconds = 0;
  for (int i = 0; i < 6; i++) {
    seconds += links.run(batch, SLICES, [&] {
      if (i == 2) links.slow(3, SLOWED);
    });
  }
  const double bytes = static_cast<double>(SLICES) * MIB;
  const double least = 2.5 * bytes / (8 * NIC) + 3.5 * bytes / (7 * NIC + SLOWED);
  CHECK(seconds < least / 0.98);
}

TEST(chooser, whatLiesOnTheOtherNodeGoesThereFirstAndOverBothWhenThereIsMuch) {
  Simulation links({1e9, 1e9}, 8 * MIB);
  for (int i = 0; i < 2; i++) links.rails[static_cast<size_t>(i)].can.numaNode = i;
  Batch batch = readBatch();
  Slice slice;
  slice.batch = &batch;
  slice.bytes = MIB;
  const auto pick = [&](int node) {
    slice.node = node;
    return choose(links.rails, slice, MIB, links.now).rail - links.rails.data();
  };
  CHECK(pick(-1) == 0 && pick(0) == 0 && pick(1) == 1);
  // The near one has so much that the far one would be first.
  links.rails[1].meter.posted(MIB, links.now);
  CHECK(pick(1) == 0);
  links.rails[0].meter.posted(MIB, links.now);
  CHECK(pick(1) == 1);
}

TEST(chooser, memoryOfADeviceGoesToTheNicsThatAreNearItOnPciFirst) {
  // NICs: across nodes, of the same node, below the same host bridge, below the same switch; and one of which nothing is known.
  Simulation links({1e9, 1e9, 1e9, 1e9, 1e9}, 8 * MIB);
  const auto place = [](int node, std::vector<u64> path) {
    PciPlace made;
    std::copy(path.begin(), path.end(), made.path.begin());
    made.depth = static_cast<u32>(path.size());
    made.numaNode = node;
    return made;
  };
  links.rails[0].can.place = place(1, {30, 31, 32});
  links.rails[1].can.place = place(0, {20, 21, 22});
  links.rails[2].can.place = place(0, {10, 14, 15});
  links.rails[3].can.place = place(0, {10, 11, 12, 16, 17});
  const PciPlace gpu = place(0, {10, 11, 12, 18, 19});
  Batch batch = readBatch();
  Slice slice;
  slice.batch = &batch;
  slice.bytes = 16 * MIB;
  slice.place = &gpu;
  const auto pick = [&] { return choose(links.rails, slice, slice.bytes, links.now).rail - links.rails.data(); };
  const auto down = [&](size_t i) { links.rails[i].state = LinkState::down; };
  CHECK(pick() == 3);
  // It is preferred, and no more: with 2 MiB under way it would take 18, the next one 16 / 0.9.
  for (int i = 0; i < 2; i++) links.rails[3].meter.posted(MIB, links.now);
  CHECK(pick() == 2);
  down(3);
  CHECK(pick() == 2);
  down(2);
  CHECK(pick() == 1);
  down(1);
  CHECK(pick() == 0);
  down(0);
  CHECK(pick() == 4);
}

TEST(chooser, aSliceWaitsForFullLinksThatTogetherAreFaster) {
  Simulation links({1e9, 1e9, 1e9, 1e9, 1e8}, 4 * MIB);
  for (size_t i = 0; i < 5; i++) links.rails[i].meter = Meter(i < 4 ? 1e9 : 1e8);
  for (size_t i = 0; i < 4; i++) {
    for (int slices = 0; slices < 4; slices++) links.rails[i].meter.posted(MIB, links.now);
  }
  Batch batch = readBatch();
  Slice slice;
  slice.batch = &batch;
  slice.bytes = MIB;
  const auto verdict = [&](u64 waiting) { return choose(links.rails, slice, waiting * MIB, links.now).verdict; };
  // The slow one takes what a fast one moves of ten: with four of them, and four slices in each, 24 more are done before.
  CHECK(verdict(20) == Verdict::wait);
  CHECK(verdict(28) == Verdict::post);
}

TEST(chooser, aSlowLinkDoesNotHoldUpABatch) {
  Simulation links({1e9, 1e7}, 4 * MIB);
  Batch batch = readBatch();
  // The slow one is measured first.
  links.run(batch, 200);
  const double fastAlone = 32 * MIB / 1e9;
  for (int i = 0; i < 20; i++) CHECK(links.run(batch, 32) < fastAlone * 1.1);
}

TEST(chooser, aLinkThatWasSlowOnceIsMeasuredAgain) {
  Simulation links({1e9, 1e9}, 4 * MIB);
  Batch batch = readBatch();
  links.run(batch, 400);
  links.slow(1, 1e7);
  links.run(batch, 400);
  REQUIRE(links.rails[1].meter.bandwidth() < 2e7);
  // Batches that the fast one moves before the slow one has moved a slice: looking costs little.
  double seconds = 0;
  for (int i = 0; i < 4000; i++) seconds += links.run(batch, 8);
  CHECK(seconds < 4000 * 8 * MIB / 1e9 * 1.05);
  // It is fast again, and nothing but such batches comes.
  links.slow(1, 1e9);
  for (int i = 0; i < 4000; i++) links.run(batch, 8);
  links.moved.assign(2, 0);
  for (int i = 0; i < 100; i++) links.run(batch, 8);
  CHECK(links.moved[1] >= 350 * MIB && links.moved[1] <= 450 * MIB);
}

TEST(chooser, batchesThatAreTooSmallForASampleDoNotGoToASlowLink) {
  Simulation links({1e9, 1e9}, 4 * MIB);
  Batch batch = readBatch();
  links.run(batch, 400);
  links.slow(1, 1e7);
  links.run(batch, 400);
  links.now += std::chrono::hours(2);
  // One slice after the other, of which two are more than a sample and none is: some look at the slow link, and then no more.
  constexpr u64 SLICES[] = {170 << 10, 130 << 10};
  Slice slice;
  slice.batch = &batch;
  u32 slow = 0;
  for (int i = 0; i < 1000; i++) {
    u64 waiting = SLICES[0] + SLICES[1];
    for (const u64 bytes : SLICES) {
      slice.bytes = bytes;
      const Choice choice = choose(links.rails, slice, waiting, links.now);
      REQUIRE(choice.verdict == Verdict::post);
      slow += choice.rail == &links.rails[1] ? 1 : 0;
      choice.rail->meter.posted(bytes, links.now);
      links.now += std::chrono::milliseconds(1);
      // What the slow one gets fails: that is no sample either.
      choice.rail->meter.settled(bytes, choice.rail == links.rails.data(), links.now);
      waiting -= bytes;
    }
  }
  CHECK(slow > 0 && slow < 10);
}

TEST(chooser, aFastLinkThatHangsIsPassedOver) {
  Simulation links({1e10, 1e9}, 4 * MIB);
  Batch batch = readBatch();
  links.run(batch, 400);
  Slice slice;
  slice.batch = &batch;
  slice.bytes = MIB;
  const auto pick = [&] { return choose(links.rails, slice, MIB, links.now); };
  const auto is = [&](const Choice& choice, size_t i) {
    return choice.verdict == Verdict::post && choice.rail == &links.rails[i];
  };
  // It takes its window, and is waited for: it would be faster.
  for (int i = 0; i < 4; i++) {
    REQUIRE(is(pick(), 0));
    links.rails[0].meter.posted(MIB, links.now);
  }
  CHECK(pick().verdict == Verdict::wait && pick().spared);
  links.now += std::chrono::milliseconds(10);
  CHECK(pick().verdict == Verdict::wait);
  links.now += std::chrono::milliseconds(20);
  CHECK(is(pick(), 1));
}

TEST(chooser, followsALinkThatBecomesSlow) {
  Meter meter(1e9);
  Clock::time_point now{};
  const auto move = [&](double bandwidth) {
    meter.posted(MIB, now);
    now += std::chrono::duration_cast<Clock::duration>(Seconds(MIB / bandwidth));
    meter.settled(MIB, true, now);
  };
  for (int i = 0; i < 20; i++) move(1e8);
  CHECK(std::abs(meter.bandwidth() / 1e8 - 1) < 0.05);
  // Queued slices: the same bandwidth, whatever each of them waited for.
  for (int i = 0; i < 64; i++) meter.posted(MIB, now);
  for (int i = 0; i < 64; i++) {
    now += std::chrono::duration_cast<Clock::duration>(Seconds(MIB / 1e8));
    meter.settled(MIB, true, now);
  }
  CHECK(std::abs(meter.bandwidth() / 1e8 - 1) < 0.05);
  CHECK(meter.inFlight() == 0);
}

TEST(chooser, smallOrFailedSlicesSayNothingAboutBandwidth) {
  Meter meter(1e9);
  Clock::time_point now{};
  for (int i = 0; i < 1000; i++) {
    meter.posted(4096, now);
    now += std::chrono::milliseconds(1);
    meter.settled(4096, true, now);
    meter.posted(MIB, now);
    now += std::chrono::microseconds(1);
    meter.settled(MIB, false, now);
  }
  CHECK(meter.bandwidth() == 1e9);
}
