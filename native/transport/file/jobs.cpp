#include "transport/file/jobs.h"

#include <algorithm>

namespace mooncake::file {

void Jobs::push(std::unique_ptr<Job> job) {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_ || job->steps.empty()) {
      job->status_ = why_;
      settling.push_back(std::move(job));
    } else {
      waiting_.push_back(job.get());
      Job* key = job.get();
      all_.emplace(key, std::move(job));
    }
  }
  if (settling.empty()) return work_.notify_all();
  settle(std::move(settling));
}

Jobs::Taken Jobs::takeLocked(bool bounce) {
  if (waiting_.empty()) return {};
  Job& job = *waiting_.front();
  const Step& step = job.steps[job.begun_];
  if (step.bounce && !bounce) return {};
  if (++job.begun_ == job.steps.size()) waiting_.pop_front();
  return {&job, &step};
}

Jobs::Taken Jobs::take(bool bounce) {
  const std::lock_guard lock(mutex_);
  return takeLocked(bounce);
}

Jobs::Taken Jobs::wait() {
  std::unique_lock lock(mutex_);
  work_.wait(lock, [this] { return stopped_ || !waiting_.empty(); });
  return takeLocked(true);
}

void Jobs::ended(Job& job, const Status& status) {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    job.ended_++;
    if (!status.ok()) {
      giveUp(job, status, settling);
    } else if (job.ended_ == job.steps.size()) {
      auto node = all_.extract(&job);
      settling.push_back(std::move(node.mapped()));
    }
  }
  settle(std::move(settling));
}

void Jobs::cancel(const Batch& batch) {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    std::vector<Job*> mine;
    for (const auto& [job, owner] : all_) {
      if (job->slice.batch == &batch) mine.push_back(job);
    }
    for (Job* job : mine)
      giveUp(*job, {Code::aborted, "the batch was given up"}, settling);
  }
  settle(std::move(settling));
}

void Jobs::stop(Status status) {
  Settling settling;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    stopped_ = true;
    why_ = std::move(status);
    std::vector<Job*> left;
    for (const auto& [job, owner] : all_)
      left.push_back(job);
    for (Job* job : left)
      giveUp(*job, why_, settling);
  }
  work_.notify_all();
  settle(std::move(settling));
}

Status Jobs::why() const {
  const std::lock_guard lock(mutex_);
  return why_;
}

/** The first failure is the job's; steps that have not begun never do. */
void Jobs::giveUp(Job& job, const Status& status, Settling& settling) {
  if (job.status_.ok()) job.status_ = status;
  if (job.begun_ < job.steps.size()) {
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), &job));
    job.ended_ += static_cast<u32>(job.steps.size()) - job.begun_;
    job.begun_ = static_cast<u32>(job.steps.size());
  }
  if (job.ended_ < job.steps.size()) return;
  auto node = all_.extract(&job);
  settling.push_back(std::move(node.mapped()));
}

void Jobs::settle(Settling settling) {
  for (std::unique_ptr<Job>& job : settling) {
    Slice& slice = job->slice;
    Status status = std::move(job->status_);
    job.reset();
    events_.settled(slice, std::move(status), false);
  }
}

} // namespace mooncake::file
