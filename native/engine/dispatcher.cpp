#include "engine/dispatcher.h"

#include <bit>

namespace mooncake {

namespace {

/** Waiting batches looked at that no link with room can take; the next look goes on behind them, after that time where
    nothing else brings it about: those in front may wait for a link that is hung, and one behind them for an idle one. So may
    one that waits for a fast link where a slower one has room. */
constexpr size_t PASSED_OVER = 16;
constexpr auto LOOK_AGAIN = std::chrono::milliseconds(20);
/** A link may get a slice after it was asked to let go of its batch: it is asked again. */
constexpr auto ASK_AGAIN = std::chrono::milliseconds(100);

/** `pump` calls on this thread, innermost first. */
struct Frame {
  const Dispatcher* dispatcher;
  Frame* outer;
  bool again = false;
};
thread_local Frame* frames = nullptr;

/** Another link may do better. */
bool mendable(Code code) {
  switch (code) {
    case Code::peer:
    case Code::timeout:
    case Code::closed:
    case Code::queueFull:
    case Code::notSupported:
    case Code::outOfMemory:
    case Code::system: return true;
    case Code::ok:
    case Code::invalidArgument:
    case Code::segment:
    case Code::aborted:
    case Code::corrupt:
    case Code::protocol: return false;
  }
  return false;
}

}  // namespace

void Dispatcher::use(std::vector<Rail> rails) {
  rails_ = std::move(rails);
  for (const Rail& rail : rails_) {
    if (rail.can.devices) {
      limits_.deviceBytes = std::min(limits_.deviceBytes, rail.can.sliceBytes);
      limits_.deviceRecords = std::min(limits_.deviceRecords, rail.can.sliceRecords);
      continue;
    }
    limits_.bytes = std::min(limits_.bytes, rail.can.sliceBytes);
    limits_.records = std::min(limits_.records, rail.can.sliceRecords);
  }
}

Status Dispatcher::start(std::unique_ptr<Job> job) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return {Code::closed, "peer " + peer_.name() + " is closed"};
    Job& added = *job;
    jobs_.emplace(added.number(), std::move(job));
    waitingBytes_ += added.bytes();
    place(added);
    // In front for its first slice alone: it waits for nothing that others have waited for longer.
    auto& list = waiting_[added.list];
    list.splice(list.begin(), list, added.place);
  }
  pump();
  return {};
}

void Dispatcher::place(Job& job) {
  const Slice* const next = job.ended ? nullptr : job.peek();
  if (next == nullptr) return unplace(job);
  const u8 list = next->file ? 1 : next->devices != 0 ? 2 : 0;
  if (job.waiting && job.list == list) return;
  unplace(job);
  job.place = waiting_[list].insert(waiting_[list].end(), &job);
  job.list = list;
  job.waiting = true;
}

void Dispatcher::unplace(Job& job) {
  if (job.waiting) waiting_[job.list].erase(job.place);
  job.waiting = false;
}

bool Dispatcher::anyRoom() const {
  for (const Rail& rail : rails_) {
    if (rail.hasRoom(1) && rail.state != LinkState::connecting) return true;
  }
  return false;
}

void Dispatcher::pump() { pump(PASSED_OVER); }
void Dispatcher::lookAtAll() { pump(SIZE_MAX); }

void Dispatcher::pump(size_t looks) {
  for (Frame* frame = frames; frame != nullptr; frame = frame->outer) {
    if (frame->dispatcher == this) {
      frame->again = true;
      return;
    }
  }
  Frame frame{this, frames};
  frames = &frame;
  Postings postings;
  Ended ended;
  bool more = false;
  do {
    frame.again = false;
    postings.count = 0;
    {
      const std::lock_guard lock(mutex_);
      more = pick(looks, postings, ended);
    }
    post(postings);
    report(ended);
  } while (frame.again || postings.full());
  frames = frame.outer;
  if (more) visit_(Clock::now() + LOOK_AGAIN);
}

void Dispatcher::post(const Postings& postings) {
  std::array<Slice*, std::tuple_size_v<decltype(Postings::at)>> run;
  for (size_t i = 0; i < postings.count;) {
    Link* const link = postings.at[i].link;
    size_t count = 0;
    for (; i < postings.count && postings.at[i].link == link; i++) run[count++] = postings.at[i].slice;
    link->postAll({run.data(), count});
  }
}

bool Dispatcher::pick(size_t looks, Postings& postings, Ended& ended) {
  if (std::all_of(std::begin(waiting_), std::end(waiting_), [](const auto& list) { return list.empty(); })) return false;
  bool more = false;
  for (Rail& rail : rails_) rail.state = rail.link->state();
  for (auto& waiting : waiting_) {
    if (!waiting.empty()) more = pickFrom(waiting, looks, postings, ended) || more;
  }
  return more;
}

bool Dispatcher::pickFrom(std::list<Job*>& waiting, size_t looks, Postings& postings, Ended& ended) {
  const Clock::time_point now = Clock::now();
  size_t passed = 0;
  bool spared = false;
  while (!postings.full() && !waiting.empty() && anyRoom()) {
    if (passed >= waiting.size()) return spared;
    if (passed >= looks) return true;
    Job& job = *waiting.front();
    Slice& slice = *job.peek();
    const Choice choice = choose(rails_, slice, waitingBytes_, now);
    switch (choice.verdict) {
      case Verdict::wait:
        passed++;
        spared = spared || choice.spared;
        break;
      case Verdict::unreachable: {
        end(job, unreachable(job));
        collect(job, ended);
        continue;
      }
      case Verdict::post: {
        Rail& rail = *choice.rail;
        job.take();
        job.posted++;
        waitingBytes_ -= slice.bytes;
        slice.link = rail.link.get();
        rail.meter.posted(slice.bytes, now);
        rail.turn = ++turns_;
        rail.link->stats.inFlightBytes.store(rail.meter.inFlight(), std::memory_order_relaxed);
        postings.at[postings.count++] = {&slice, slice.link};
        place(job);
        break;
      }
    }
    if (job.waiting) waiting_[job.list].splice(waiting_[job.list].end(), waiting_[job.list], job.place);
  }
  return spared;
}

void Dispatcher::settled(Slice& slice, Status status, bool verified) {
  Settled one{&slice, std::move(status), verified};
  settledAll({&one, 1});
}

void Dispatcher::settledAll(std::span<Settled> all) {
  // Whoever closes the peer does not wait for this thread.
  const std::shared_ptr<Dispatcher> self = shared_from_this();
  Ended ended;
  bool more = false;
  {
    const std::lock_guard lock(mutex_);
    const Clock::time_point now = Clock::now();
    while (!all.empty()) all = take(all, now, ended);
    more = std::any_of(std::begin(waiting_), std::end(waiting_), [](const auto& list) { return !list.empty(); });
  }
  report(ended);
  if (more) pump();
}

std::span<Settled> Dispatcher::take(std::span<Settled> all, Clock::time_point now, Ended& ended) {
  Link* const link = all.front().slice->link;
  Rail& rail = *std::find_if(rails_.begin(), rails_.end(), [link](const Rail& each) { return each.link.get() == link; });
  u64 slices = 0;
  u64 bytes = 0;
  u64 failures = 0;
  size_t count = 0;
  for (; count < all.size() && all[count].slice->link == link; count++) {
    Settled& one = all[count];
    const bool moved = one.status.ok();
    const u64 size = one.slice->bytes;
    rail.meter.settled(size, moved, now);
    slices += moved ? 1 : 0;
    bytes += moved ? size : 0;
    failures += moved ? 0 : 1;
    settle(one, ended);
  }
  // Nobody else writes them: the lock is held.
  const auto add = [](std::atomic<u64>& to, u64 what) {
    to.store(to.load(std::memory_order_relaxed) + what, std::memory_order_relaxed);
  };
  LinkStats& stats = link->stats;
  stats.inFlightBytes.store(rail.meter.inFlight(), std::memory_order_relaxed);
  stats.bandwidth.store(rail.meter.bandwidth(), std::memory_order_relaxed);
  add(stats.slices, slices);
  add(stats.bytes, bytes);
  add(stats.failures, failures);
  return all.subspan(count);
}

void Dispatcher::settle(Settled& one, Ended& ended) {
  Slice& slice = *one.slice;
  Job& job = static_cast<Job&>(*slice.batch);
  if (!one.status.ok()) slice.failedOn |= u64{1} << (slice.link->number % 64);
  slice.link = nullptr;
  job.posted--;
  if (one.status.ok()) {
    job.settled++;
    job.moved += slice.bytes;
    if (one.verified) job.verified += slice.bytes;
  } else if (!job.ended) {
    fail(job, slice, std::move(one.status));
  }
  if (!job.ended && job.settled == job.slices().size()) end(job, {});
  collect(job, ended);
}

void Dispatcher::fail(Job& job, Slice& slice, Status status) {
  // What arrived was wrong: of the memory, or of one path to it. A second path decides.
  const bool again = mendable(status.code) || (status.code == Code::corrupt && std::has_single_bit(slice.failedOn));
  if (!again) return end(job, std::move(status));
  job.failure = std::move(status);
  job.failed.push_back(&slice);
  waitingBytes_ += slice.bytes;
  place(job);
}

Status Dispatcher::unreachable(const Job& job) const {
  const Status* last = job.failure.ok() ? nullptr : &job.failure;
  bool down = true;
  Status failure;
  for (const Rail& rail : rails_) {
    down = down && rail.link->state() == LinkState::down;
    if (Status status = rail.link->failure(); !status.ok()) failure = std::move(status);
  }
  if (last != nullptr && (!down || last->code == Code::corrupt)) return *last;
  if (down) {
    const std::string& detail = last != nullptr ? last->detail : failure.detail;
    return {Code::peer, "no link to " + peer_.name() + " is left" + (detail.empty() ? "" : ": " + detail)};
  }
  return {Code::notSupported, "no link to " + peer_.name() + " can carry it"};
}

void Dispatcher::end(Job& job, Status why) {
  if (job.ended) return;
  job.ended = true;
  job.end = std::move(why);
  for (const Slice* slice : job.failed) waitingBytes_ -= slice->bytes;
  for (size_t i = job.nextSlice; i < job.slices().size(); i++) waitingBytes_ -= job.slices()[i].bytes;
  unplace(job);
}

void Dispatcher::collect(Job& job, Ended& ended) {
  if (!job.ended || job.posted > 0 || job.pins > 0) return;
  auto node = jobs_.extract(job.number());
  ended.push_back(std::move(node.mapped()));
  unreported_++;
}

void Dispatcher::report(Ended& ended) {
  for (std::unique_ptr<Job>& job : ended) {
    const u64 number = job->number();
    BatchResult result{std::move(job->end), job->moved, job->verified,
                       static_cast<u64>(std::chrono::nanoseconds(Clock::now() - job->started).count())};
    const BatchDone done = std::move(job->done);
    job.reset();
    over_(result.status.ok());
    done(number, std::move(result));
  }
  if (ended.empty()) return;
  const std::lock_guard lock(mutex_);
  unreported_ -= ended.size();
  ended.clear();
  if (closed_ && unreported_ == 0 && jobs_.empty()) empty_.notify_all();
}

std::vector<Link*> Dispatcher::holders(Job& job) const {
  std::vector<Link*> links;
  for (const Slice& slice : job.slices()) {
    if (slice.link != nullptr && std::find(links.begin(), links.end(), slice.link) == links.end()) {
      links.push_back(slice.link);
    }
  }
  return links;
}

void Dispatcher::giveUp(Job& job, const Status& why, Clock::time_point now, Asked& asked, Ended& ended) {
  end(job, why);
  job.due = now + ASK_AGAIN;
  if (job.posted > 0) {
    job.pins++;
    asked.emplace_back(&job, holders(job));
  }
  collect(job, ended);
}

void Dispatcher::letGo(const Asked& asked, Ended& ended) {
  for (const auto& [job, links] : asked) {
    for (Link* const link : links) link->cancel(*job);
  }
  if (!asked.empty()) {
    const std::lock_guard lock(mutex_);
    for (const auto& [job, links] : asked) {
      job->pins--;
      collect(*job, ended);
    }
  }
  report(ended);
}

bool Dispatcher::cancel(u64 batch, const Status& why) {
  Asked asked;
  Ended ended;
  {
    const std::lock_guard lock(mutex_);
    const auto found = jobs_.find(batch);
    if (found == jobs_.end()) return false;
    giveUp(*found->second, why, Clock::now(), asked, ended);
  }
  letGo(asked, ended);
  if (!asked.empty()) visit_(Clock::now() + ASK_AGAIN);
  return true;
}

Clock::time_point Dispatcher::expire(Clock::time_point now) {
  Asked asked;
  Ended ended;
  Clock::time_point next = Clock::time_point::max();
  {
    const std::lock_guard lock(mutex_);
    std::vector<Job*> late;
    for (const auto& [number, job] : jobs_) {
      if (job->due <= now) late.push_back(job.get());
    }
    for (Job* const job : late) {
      giveUp(*job, {Code::timeout, "the batch's deadline passed with " + std::to_string(job->moved) + " of " +
                                       std::to_string(job->bytes()) + " bytes moved"},
             now, asked, ended);
    }
    for (const auto& [number, job] : jobs_) next = std::min(next, job->due);
  }
  letGo(asked, ended);
  return next;
}

void Dispatcher::close(const Status& why) {
  Asked asked;
  Ended ended;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    std::vector<Job*> all;
    for (const auto& [number, job] : jobs_) all.push_back(job.get());
    for (Job* const job : all) giveUp(*job, why, Clock::now(), asked, ended);
  }
  letGo(asked, ended);
  for (const Rail& rail : rails_) rail.link->close();
  std::unique_lock lock(mutex_);
  empty_.wait(lock, [this] { return jobs_.empty() && unreported_ == 0; });
}

}  // namespace mooncake
