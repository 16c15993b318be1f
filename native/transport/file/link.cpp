#include "transport/file/link.h"

namespace mooncake::file {

namespace {

Expected<std::unique_ptr<Runner>> start(Io io, Jobs& jobs) {
  if (io == Io::threads) return startThreads(jobs);
  Expected<std::unique_ptr<Runner>> started = startUring(jobs);
  if (started.ok() || io == Io::uring) return started;
  return startThreads(jobs);
}

/** Pieces that continue each other on both sides become one copy, so that they have no edges between them. */
std::vector<Step> stepsOf(const Slice& slice) {
  std::vector<Step> steps;
  Transfer transfer{};
  slice.forEach([&](const Piece& piece) {
    if (transfer.length > 0 && transfer.source == piece.source && transfer.target == piece.local &&
        transfer.sourceOffset + transfer.length == piece.remoteOffset &&
        transfer.targetOffset + transfer.length == piece.localOffset) {
      transfer.length += piece.length;
      return;
    }
    if (transfer.length > 0) plan(transfer, steps);
    transfer = {piece.source, piece.remoteOffset, piece.local, piece.localOffset, piece.length};
  });
  if (transfer.length > 0) plan(transfer, steps);
  return steps;
}

} // namespace

FileLink::FileLink(Io io, LinkEvents& events) : io_(io), jobs_(events) {
  capabilities_.copy = true;
  capabilities_.windowBytes = 16 << 20;
}

LinkState FileLink::state() const { return jobs_.why().ok() ? LinkState::up : LinkState::down; }

Runner* FileLink::runner() {
  const std::lock_guard lock(starting_);
  if (runner_ || closed_) return runner_.get();
  Expected<std::unique_ptr<Runner>> started = start(io_, jobs_);
  if (started.ok()) {
    runner_ = std::move(started.value);
  } else {
    jobs_.stop(std::move(started.status));
  }
  return runner_.get();
}

void FileLink::post(Slice& slice) {
  auto job = std::make_unique<Job>(slice);
  job->steps = stepsOf(slice);
  Runner* const running = runner();
  jobs_.push(std::move(job));
  if (running) running->wake();
}

void FileLink::close() {
  jobs_.stop({Code::closed, "the file transport is closed"});
  Runner* running = nullptr;
  {
    const std::lock_guard lock(starting_);
    closed_ = true;
    running = runner_.get();
  }
  // Kept until the link goes: who posts at this moment wakes it.
  if (running) running->close();
}

} // namespace mooncake::file
