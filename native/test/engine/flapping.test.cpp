// What no order of events may break: every batch is reported exactly once, and none of its slices is with a link then. Links
// that settle on threads of their own, when and how they like, that come and go and are deaf to some cancels, against
// submitters that cancel and deadlines that pass.
#include "engine/dispatcher.h"
#include "engine/keeper.h"
#include "test/check.h"

#include <random>
#include <thread>

using namespace mooncake;

namespace {

constexpr u64 MIB = 1 << 20;
constexpr u64 MEMORY = u64{1} << 30;
constexpr Code CODES[] = {Code::ok,     Code::ok,      Code::ok,    Code::ok,      Code::ok,        Code::ok,
                          Code::peer,   Code::timeout, Code::closed, Code::system, Code::queueFull, Code::notSupported,
                          Code::corrupt};

class RestlessLink final : public Link {
 public:
  RestlessLink(u32 which, u64 seed, LinkEvents& events, std::function<void()> wake)
      : events_(events), wake_(std::move(wake)), name_("restless" + std::to_string(which)), random_(seed) {
    number = which;
    can.read = can.write = can.verify = true;
    can.windowBytes = 3 * MIB;
    thread_ = std::thread([this] { live(); });
  }
  ~RestlessLink() override { close(); }

  const std::string& name() const override { return name_; }
  const Capabilities& capabilities() const override { return can; }
  LinkState state() const override { return state_; }
  Status failure() const override { return {}; }
  bool reaches(const Slice&) const override { return true; }

  void post(Slice& slice) override {
    Code code = Code::ok;
    {
      const std::lock_guard lock(mutex_);
      code = closed_ ? Code::closed : any();
      if (!closed_ && random_() % 8 != 0) return kept_.push_back(&slice);
    }
    settle(slice, code);
  }

  void cancel(Batch& batch) override {
    std::vector<Slice*> given;
    {
      const std::lock_guard lock(mutex_);
      if (random_() % 2 == 0) return;
      std::erase_if(kept_, [&](Slice* slice) {
        if (slice->batch == &batch) given.push_back(slice);
        return slice->batch == &batch;
      });
    }
    for (Slice* slice : given) settle(*slice, Code::aborted);
  }

  void close() override {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
      state_ = LinkState::down;
    }
    if (thread_.joinable()) thread_.join();
  }

  Capabilities can;

 private:
  Code any() { return CODES[random_() % std::size(CODES)]; }

  void settle(Slice& slice, Code code) {
    events_.settled(slice, code == Code::ok ? Status() : Status(code, name_ + " failed"), code == Code::ok);
  }

  void live() {
    for (;;) {
      Slice* slice = nullptr;
      Code code = Code::closed;
      u64 pause = 0;
      {
        const std::lock_guard lock(mutex_);
        if (!kept_.empty() && (closed_ || random_() % 4 != 0)) {
          const size_t at = random_() % kept_.size();
          slice = kept_[at];
          kept_.erase(kept_.begin() + static_cast<long>(at));
          if (!closed_) code = any();
        } else if (closed_) {
          return;
        }
        pause = random_() % 200;
        if (!closed_ && random_() % 100 == 0) {
          state_ = state_ == LinkState::up ? LinkState::connecting : LinkState::up;
        }
      }
      if (slice != nullptr) settle(*slice, code);
      if (pause == 0) wake_();
      if (pause < 50) std::this_thread::sleep_for(std::chrono::microseconds(pause));
    }
  }

  LinkEvents& events_;
  const std::function<void()> wake_;
  const std::string name_;
  std::atomic<LinkState> state_{LinkState::up};
  std::mutex mutex_;
  std::mt19937_64 random_;
  std::vector<Slice*> kept_;
  bool closed_ = false;
  std::thread thread_;
};

struct Tally {
  std::atomic<u64> accepted{0};
  std::atomic<u64> reported{0};
  std::atomic<u64> wrong{0};
  std::atomic<u64> whole{0};
  std::atomic<u64> aborted{0};
};

}  // namespace

TEST(dispatcher, reportsEveryBatchOnceWhateverLinksDo) {
  constexpr int USERS = 3;
  constexpr int BATCHES = 300;
  u64 whole = 0;
  u64 aborted = 0;
  for (u64 seed = 1; seed <= 4; seed++) {
    MemoryTable memory;
    Segment all;
    // Never dereferenced.
    all.base = reinterpret_cast<u8*>(u64{1} << 32);
    all.length = MEMORY;
    const u32 segment = memory.add(std::move(all), {}).value;
    std::atomic<u64> over{0};
    Keeper* timer = nullptr;
    const auto dispatcher = std::make_shared<Dispatcher>("peer", 1, [&](bool) { over++; }, [&](Clock::time_point when) { timer->by(when); });
    Keeper keeper([&](Clock::time_point now) {
      dispatcher->lookAtAll();
      return dispatcher->expire(now);
    });
    timer = &keeper;
    std::vector<Rail> rails;
    for (u32 i = 0; i < 3; i++) {
      rails.emplace_back("restless", std::make_unique<RestlessLink>(i, seed * 10 + i, *dispatcher, [&] { keeper.now(); }));
    }
    dispatcher->peer().setSegment({1, 0, MEMORY});
    dispatcher->use(std::move(rails));

    Tally tally;
    std::atomic<u64> next{1};
    const auto submit = [&](std::mt19937_64& random) {
      const u64 bytes = 1 + random() % (6 * MIB);
      const Clock::time_point deadline = Clock::now() + std::chrono::microseconds(random() % 2 ? 500 + random() % 20000 : 60000000);
      const u64 number = next++;
      auto job = std::make_unique<Job>(number, Op::read, random() % 2 == 0, deadline, std::vector<Record>{{1, segment, 0, 0, bytes}});
      job->due = deadline;
      const auto reports = std::make_shared<std::atomic<u32>>(0);
      job->done = [&tally, reports, number, bytes](u64 batch, const BatchResult& result) {
        const bool isWhole = result.bytes == bytes && result.verifiedBytes <= bytes;
        if (reports->fetch_add(1) != 0 || batch != number || result.bytes > bytes || (result.status.ok() && !isWhole)) tally.wrong++;
        if (result.status.ok()) tally.whole++;
        if (result.status.code == Code::aborted) tally.aborted++;
        tally.reported++;
      };
      REQUIRE(job->prepare(memory, &dispatcher->peer(), dispatcher->limits()).ok());
      if (!dispatcher->start(std::move(job)).ok()) return number;
      tally.accepted++;
      keeper.by(deadline);
      return number;
    };
    std::vector<std::thread> users;
    for (int user = 0; user < USERS; user++) {
      users.emplace_back([&, user] {
        std::mt19937_64 random(seed * 100 + static_cast<u64>(user));
        for (int i = 0; i < BATCHES; i++) {
          u64 number = submit(random);
          if (random() % 4 == 0) number -= std::min<u64>(number, random() % 5);
          if (random() % 3 == 0) dispatcher->cancel(number, {Code::aborted, "no longer wanted"});
        }
      });
    }
    // Half of the rounds end by themselves, the others under way.
    if (seed % 2 == 0) {
      for (std::thread& user : users) user.join();
      while (tally.reported < tally.accepted) std::this_thread::yield();
      CHECK(tally.accepted == USERS * BATCHES);
    } else {
      while (tally.accepted < USERS * BATCHES / 2) std::this_thread::yield();
    }
    dispatcher->close({Code::closed, "the test is over"});
    CHECK(over == tally.reported);
    for (std::thread& user : users) {
      if (user.joinable()) user.join();
    }
    keeper.close();
    CHECK(tally.reported == tally.accepted && over == tally.accepted);
    CHECK(tally.wrong == 0);
    whole += tally.whole;
    aborted += tally.aborted;
    CHECK(memory.remove(segment, {}).ok());
  }
  // Not a round in which everything ended the same way.
  CHECK(whole > 0 && aborted > 0);
}
