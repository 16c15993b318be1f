#include "transport/cuda/copier.h"

#include <sched.h>
#include <sys/prctl.h>

#include <algorithm>

namespace mooncake::cuda {

Copier::Copier(const Gpu& gpu, Pins& pins, const Share& share, std::chrono::microseconds spin, Settled settled)
    : gpu_(gpu), driver_(*gpu.driver), launcher_(gpu, pins, share), spin_(spin), settled_(std::move(settled)) {}

void Copier::post(Slice& slice) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      load_.fetch_add(slice.bytes, std::memory_order_relaxed);
      queue_.push_back(&slice);
      if (!started_) thread_ = std::thread([this] { work(); });
      started_ = true;
      changed_.notify_one();
      return;
    }
  }
  settled_(slice, {Code::closed, "the engine is closed"}, false);
}

void Copier::cancel(Batch& batch) {
  std::vector<Slice*> dropped;
  {
    const std::lock_guard lock(mutex_);
    const auto kept = std::stable_partition(queue_.begin(), queue_.end(), [&](Slice* slice) { return slice->batch != &batch; });
    dropped.assign(kept, queue_.end());
    queue_.erase(kept, queue_.end());
  }
  for (Slice* slice : dropped) over(*slice, {Code::aborted, "the batch was cancelled"});
}

void Copier::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void Copier::over(Slice& slice, Status status, bool verified) {
  load_.fetch_sub(slice.bytes, std::memory_order_relaxed);
  settled_(slice, std::move(status), verified);
}

void Copier::work() {
  // Sleeps as short as asked for.
  ::prctl(PR_SET_TIMERSLACK, 1000UL);
  const Current current(gpu_);
  broken_ = launcher_.prepare();
  progress_ = Clock::now();
  std::vector<std::pair<Slice*, Status>> failed;
  for (;;) {
    Slice* next = nullptr;
    {
      std::unique_lock lock(mutex_);
      next = take(failed);
      if (next == nullptr && failed.empty() && launched_ == finished_ && closed_) {
        // What is left waits for events that nobody will record any more.
        for (Slice* const slice : queue_) failed.emplace_back(slice, Status(Code::closed, "the engine is closed"));
        queue_.clear();
        if (failed.empty()) break;
      }
    }
    for (auto& [slice, status] : failed) over(*slice, std::move(status));
    const bool refused = !failed.empty();
    failed.clear();
    if (next != nullptr) {
      start(*next);
    } else if (launched_ != finished_ && driver_.eventQuery(oldest().done) != NOT_READY) {
      finish(oldest());
    } else if (!refused) {
      std::unique_lock lock(mutex_);
      pause(lock);
      continue;
    }
    progress_ = Clock::now();
  }
  launcher_.unprepare();
}

Slice* Copier::take(std::vector<std::pair<Slice*, Status>>& failed) {
  if (launched_ - finished_ >= Launcher::SLOTS) return nullptr;
  if (launched_ != finished_ && Clock::now() - stretch_.began > LONG_STRETCH) return nullptr;
  const Batch* asked = nullptr;
  for (auto at = queue_.begin(); at != queue_.end();) {
    Slice* const slice = *at;
    Order* const order = slice->batch->order();
    // Slices of one batch are mostly next to each other.
    if (order != nullptr && slice->batch == asked) {
      ++at;
      continue;
    }
    asked = order != nullptr ? slice->batch : asked;
    const Expected<bool> ready = order == nullptr ? Expected<bool>(true) : order->ready();
    if (ready.ok() && !ready.value) {
      ++at;
      continue;
    }
    at = queue_.erase(at);
    if (ready.ok()) return slice;
    failed.emplace_back(slice, ready.status);
  }
  return nullptr;
}

/**
 * Until there may be something to do: a slice that can be launched, or the end of one that is under way. To be woken up by the
 * driver takes longer than many a copy does, so it is asked again and again while a copy is short, and without sleeping
 * shortly before and after its end is expected.
 */
void Copier::pause(std::unique_lock<std::mutex>& lock) {
  const bool idle = launched_ == finished_;
  if (idle && queue_.empty()) {
    changed_.wait(lock, [this] { return closed_ || !queue_.empty(); });
    progress_ = Clock::now();
    return;
  }
  const size_t queued = queue_.size();
  const auto now = Clock::now();
  const auto quiet = now - progress_;
  auto sleep = std::chrono::duration_cast<Clock::duration>(quiet < LONG_WAIT ? LOOK_EVERY : LOOK_SELDOM);
  if (spin_.count() > 0) {
    const double rate = idle ? 0 : launcher_.ways().rate(oldest().work);
    auto due = progress_;
    if (rate > 0) {
      const std::chrono::duration<double> expected(static_cast<double>(oldest().work.bytes) / rate);
      due = std::max(oldest().launched, lastEnd_) + std::chrono::duration_cast<Clock::duration>(expected);
    }
    if (now >= due - AWAKE && now < due + spin_) {
      lock.unlock();
      ::sched_yield();
      return;
    }
    // Half of the way each time: what is expected to take too long would else take as long as that, and be expected again.
    if (due - AWAKE > now && queue_.empty()) sleep = std::max(sleep, std::min<Clock::duration>((due - AWAKE - now) / 2, LONG_WAIT));
  }
  changed_.wait_for(lock, sleep, [&] { return queue_.size() != queued; });
}

void Copier::start(Slice& slice) {
  if (!broken_.ok()) return over(slice, broken_);
  Slot& slot = launcher_.slots()[launched_ % Launcher::SLOTS];
  slot.slice = &slice;
  const bool first = launched_ == finished_;
  Status status = launcher_.launch(slot, first ? nullptr : &stretch_.way);
  if (!status.ok()) {
    stretch_.alike = false;
    return over(slice, std::move(status));
  }
  launched_++;
  if (first) stretch_ = {slot.launched, slot.work, slot.way, 0, true};
  stretch_.bytes += slot.work.bytes;
  stretch_.alike = stretch_.alike && slot.way == stretch_.way && slot.summed == stretch_.work.summed;
}

void Copier::finish(Slot& slot) {
  Status status = gpu_.status("copying", driver_.eventSynchronize(slot.done));
  lastEnd_ = Clock::now();
  // A context that has failed fails for good.
  if (!status.ok()) broken_ = status;
  Status found = launcher_.finish(slot);
  stretch_.alike = stretch_.alike && status.ok();
  if (status.ok()) status = std::move(found);
  Slice& slice = *slot.slice;
  slot.slice = nullptr;
  finished_++;
  if (launched_ == finished_ && stretch_.alike) {
    const std::chrono::duration<double> seconds = lastEnd_ - stretch_.began;
    launcher_.ways().took(stretch_.work, stretch_.way, stretch_.bytes, seconds.count());
  }
  const bool verified = slot.summed && status.ok();
  over(slice, std::move(status), verified);
}

}  // namespace mooncake::cuda
