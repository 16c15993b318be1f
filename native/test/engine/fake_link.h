// A link that moves nothing and does what a test tells it: settles by itself, or keeps what it got until it is told to.
#pragma once

#include "engine/dispatcher.h"

#include <deque>
#include <optional>

namespace mooncake::test {

class FakeLink final : public Link {
 public:
  FakeLink(std::string name, LinkEvents& events) : events_(events), name_(std::move(name)) {
    can.read = can.write = can.copy = can.verify = true;
  }

  const std::string& name() const override { return name_; }
  const Capabilities& capabilities() const override { return can; }
  LinkState state() const override { return state_; }
  Status failure() const override { return state_ == LinkState::down ? Status(Code::peer, name_ + " broke") : Status(); }
  bool reaches(const Slice&) const override { return reaching; }

  void post(Slice& slice) override {
    {
      const std::lock_guard lock(mutex_);
      posted++;
      bytes += slice.bytes;
      if (!closed_ && !answer) return kept_.push_back(&slice);
    }
    if (answer) return events_.settled(slice, Status(*answer, name_ + " answered"), can.verify && *answer == Code::ok);
    events_.settled(slice, {Code::closed, name_ + " is closed"}, false);
  }

  void cancel(Batch& batch) override {
    cancels++;
    if (!obedient) return;
    std::vector<Slice*> given;
    {
      const std::lock_guard lock(mutex_);
      std::erase_if(kept_, [&](Slice* slice) {
        if (slice->batch == &batch) given.push_back(slice);
        return slice->batch == &batch;
      });
    }
    for (Slice* slice : given) events_.settled(*slice, {Code::aborted, "cancelled"}, false);
  }

  void close() override {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    state_ = LinkState::down;
    while (settleOne(Code::closed)) {
    }
  }

  /** Settles the oldest that it keeps; false where there is none. */
  bool settleOne(Code code = Code::ok) {
    Slice* slice = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (kept_.empty()) return false;
      slice = kept_.front();
      kept_.pop_front();
    }
    Status status;
    if (code != Code::ok) status = {code, name_ + " failed"};
    events_.settled(*slice, std::move(status), can.verify && code == Code::ok);
    return true;
  }

  /** Slices that it keeps. */
  size_t kept() {
    const std::lock_guard lock(mutex_);
    return kept_.size();
  }
  Slice* oldest() {
    const std::lock_guard lock(mutex_);
    return kept_.empty() ? nullptr : kept_.front();
  }

  void become(LinkState state) { state_ = state; }

  // Set before the dispatcher has it:
  Capabilities can;
  /** How it settles within `post`; none: it keeps slices. */
  std::optional<Code> answer;
  bool reaching = true;
  /** Lets go of a batch's slices when it is asked to. */
  bool obedient = true;

  std::atomic<u64> posted{0};
  std::atomic<u64> bytes{0};
  std::atomic<u32> cancels{0};

 private:
  LinkEvents& events_;
  const std::string name_;
  std::atomic<LinkState> state_{LinkState::up};
  std::mutex mutex_;
  std::deque<Slice*> kept_;
  bool closed_ = false;
};

/** A dispatcher over fake links, and memory for its batches: one segment of 1 GiB that nobody touches. */
class Fixture {
 public:
  static constexpr u64 MEMORY = u64{1} << 30;
  static constexpr u64 MIB = 1 << 20;

  explicit Fixture(size_t count = 1) {
    for (size_t i = 0; i < count; i++) {
      made_.push_back(std::make_unique<FakeLink>("fake" + std::to_string(i), *dispatcher));
      made_.back()->number = static_cast<u32>(i);
      links.push_back(made_.back().get());
    }
    Segment all;
    // Never dereferenced.
    all.base = reinterpret_cast<u8*>(u64{1} << 32);
    all.length = MEMORY;
    segment = memory.add(std::move(all), {}).value;
    dispatcher->peer().setSegment({1, 0, MEMORY});
  }
  ~Fixture() {
    if (!used_) use();
    dispatcher->close({Code::closed, "the test is over"});
  }

  /** After the links were set up. */
  void use() {
    std::vector<Rail> rails;
    for (auto& link : made_) rails.emplace_back("fake", std::move(link));
    dispatcher->use(std::move(rails));
    used_ = true;
  }

  struct Outcome {
    std::mutex mutex;
    std::optional<BatchResult> result;
    bool over() {
      const std::lock_guard lock(mutex);
      return result.has_value();
    }
    Code code() { return result ? result->status.code : Code::ok; }
  };
  using OutcomePointer = std::shared_ptr<Outcome>;

  /** A read of `bytes` in one record. */
  OutcomePointer start(u64 bytes, Clock::time_point deadline = Clock::time_point::max(), bool verify = true, u64* number = nullptr) {
    auto outcome = std::make_shared<Outcome>();
    const u64 id = nextBatch_++;
    if (number != nullptr) *number = id;
    auto job = std::make_unique<Job>(id, Op::read, verify, deadline, std::vector<Record>{{1, segment, 0, 0, bytes}});
    job->due = deadline;
    job->done = [outcome](u64, BatchResult result) {
      const std::lock_guard lock(outcome->mutex);
      if (outcome->result) std::abort();
      outcome->result = std::move(result);
    };
    Status status = job->prepare(memory, &dispatcher->peer(), dispatcher->limits());
    if (status.ok()) status = dispatcher->start(std::move(job));
    if (!status.ok()) outcome->result = BatchResult{std::move(status)};
    return outcome;
  }

  MemoryTable memory;
  u32 segment = 0;
  std::atomic<u64> ended{0};
  /** When the dispatcher last asked for a visit. */
  std::atomic<Clock::time_point> visit{Clock::time_point{}};
  std::shared_ptr<Dispatcher> dispatcher =
      std::make_shared<Dispatcher>("peer", 1, [this](bool) { ended++; }, [this](Clock::time_point when) { visit = when; });
  std::vector<FakeLink*> links;

 private:
  std::vector<std::unique_ptr<FakeLink>> made_;
  std::atomic<u64> nextBatch_{1};
  bool used_ = false;
};

}  // namespace mooncake::test
