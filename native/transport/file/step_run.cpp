#include "transport/file/step_run.h"

#include <cerrno>
#include <cstring>
#include <utility>

namespace mooncake::file {

namespace {

/** Of calls that were told to try again without having moved anything. */
constexpr u32 MOST_RETRIES = 1000;

} // namespace

StepRun::StepRun(const Step& step, u8* bounce) : step_(step) {
  if (step_.bounce) {
    buffer_ = bounce;
  } else {
    buffer_ = step_.target.file ? step_.source.memory : step_.target.memory;
  }
  if (step_.source.file) {
    phase_ = Phase::load;
    return;
  }
  if (buffer_ != step_.source.memory) std::memcpy(buffer_, step_.source.memory, step_.length);
  phase_ = step_.target.file ? Phase::store : Phase::finished;
}

bool StepRun::next(Request& request) const {
  if (phase_ == Phase::finished) return false;
  const End& here = end();
  request.write = phase_ == Phase::store;
  request.fd = here.direct ? here.file->direct.fd : here.file->fd;
  request.memory = buffer_ + done_;
  request.offset = here.file->fdOffset + here.offset + done_;
  request.length = step_.length - done_;
  return true;
}

void StepRun::completed(std::int64_t result) {
  if (result < 0) return failed(static_cast<int>(-result));
  if (result == 0) {
    if (phase_ == Phase::store) return finish(describe(EIO));
    return finish({Code::segment, "read past the end of " + end().file->path + ": it ends before byte " +
                                      std::to_string(end().offset + done_ + 1)});
  }
  done_ += static_cast<u64>(result);
  retries_ = 0;
  if (done_ < step_.length) {
    End& here = phase_ == Phase::load ? step_.source : step_.target;
    if (here.direct && done_ % here.file->direct.granule != 0) here.direct = false;
  } else if (phase_ == Phase::load) {
    loaded();
  } else {
    finish({});
  }
}

void StepRun::loaded() {
  if (step_.target.file) {
    done_ = 0;
    phase_ = Phase::store;
    return;
  }
  if (buffer_ != step_.target.memory) std::memcpy(step_.target.memory, buffer_, step_.length);
  finish({});
}

void StepRun::failed(int error) {
  const bool again = error == EINTR || error == EAGAIN;
  if (again && ++retries_ < MOST_RETRIES) return;
  // What the file system or the memory does not allow directly goes through the page cache.
  End& here = phase_ == Phase::load ? step_.source : step_.target;
  if (here.direct && (error == EINVAL || error == EFAULT || error == EOPNOTSUPP)) {
    here.direct = false;
    return;
  }
  finish(describe(error));
}

Status StepRun::describe(int error) const {
  const char* verb = phase_ == Phase::store ? "write " : "read ";
  return systemError(verb + end().file->path + " at " + std::to_string(end().offset + done_), error);
}

void StepRun::finish(Status status) {
  status_ = std::move(status);
  phase_ = Phase::finished;
}

} // namespace mooncake::file
