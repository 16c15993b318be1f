#include "transport/tcp/stream.h"

#include "transport/tcp/pulse.h"

#include <sys/epoll.h>

#include <cerrno>

namespace mooncake::tcp {

void Stream::start() {
  loop().run([self = shared_from_this()] {
    self->name_ = self->loop().add(self, -1, 0);
    Lock lock(self->mutex_);
    if (self->phase_ == Phase::idle) self->connect(lock);
  });
}

void Stream::close() {
  loop().runAndWait([this] { fail({Code::closed, "the link to " + place() + " is closed"}, true); });
  {
    Lock lock(mutex_);
    ended_.wait(lock, [this] { return phase_ == Phase::down; });
  }
  loop().runAndWait([this] { loop().remove(std::exchange(name_, 0)); });
}

LinkState Stream::state() const {
  const Lock lock(mutex_);
  if (failing_) return forGood_ ? LinkState::down : LinkState::connecting;
  return phase_ == Phase::up ? LinkState::up : phase_ == Phase::down ? LinkState::down : LinkState::connecting;
}

Status Stream::failure() const {
  const Lock lock(mutex_);
  return phase_ == Phase::down ? failure_ : Status();
}

Status Stream::notUp() const {
  if (phase_ == Phase::down || failing_) return failure_;
  return {Code::peer, "no connection to " + place() + " yet"};
}

void Stream::connect(Lock& lock) {
  Address address;
  {
    const std::lock_guard routes(context_.route->mutex);
    const std::vector<Address>& addresses = context_.route->addresses;
    if (addresses.empty()) {
      if (!context_.route->failure.ok()) {
        failure_ = context_.route->failure;
        forGood_ = true;
        return finish(lock);
      }
      return;
    }
    address = addresses[turn_++ % addresses.size()];
  }
  since_ = loop().now();
  Expected<Fd> started = startConnect(address);
  if (!started.ok()) {
    failure_ = started.status;
    return finish(lock);
  }
  fd_ = std::move(started.value);
  wantsToWrite_ = true;
  loop().attach(name_, fd_.get(), EPOLLOUT);
  phase_ = Phase::connecting;
}

void Stream::checkConnect() {
  Lock lock(mutex_);
  if (const int error = connectError(fd_); error != 0) {
    refused_ = error == ECONNREFUSED;
    lock.unlock();
    return fail(systemError("connect " + place(), error, Code::peer));
  }
  tune(fd_, STOCK_SILENCE_MS);
  since_ = loop().now();
  phase_ = Phase::greeting;
  wantToWrite(false);
  connected(lock);
}

void Stream::rise() {
  phase_ = Phase::up;
  since_ = loop().now();
  retry_.succeeded();
  context_.wake();
}

void Stream::wantToWrite(bool want) {
  if (want == wantsToWrite_) return;
  wantsToWrite_ = want;
  loop().change(name_, fd_.get(), want ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void Stream::ready(u32 events) {
  Phase phase;
  {
    const Lock lock(mutex_);
    if (!fd_ || failing_) return;
    phase = phase_;
  }
  if (phase == Phase::connecting) return checkConnect();
  if (events & EPOLLOUT) writable();
  // Errors show when it is read.
  if (events & ~EPOLLOUT) readable();
}

bool Stream::tick() {
  Lock lock(mutex_);
  if (failing_) return true;
  const u64 now = loop().now();
  switch (phase_) {
    case Phase::idle:
      if (retry_.due(now)) connect(lock);
      return true;
    case Phase::connecting:
    case Phase::greeting:
      if (now - since_ < GREETING_MS) return true;
      lock.unlock();
      fail({Code::peer, place() + " does not answer"});
      return true;
    case Phase::up: lock.unlock(); return watch(now);
    case Phase::down: return false;
  }
  return false;
}

void Stream::fail(Status why, bool forGood) {
  Lock lock(mutex_);
  if (phase_ == Phase::down) return;
  if (!failing_ || forGood) failure_ = std::move(why);
  forGood_ = forGood_ || forGood;
  // Whoever is about to send is told so by the socket.
  if (fd_) ::shutdown(fd_.get(), SHUT_RDWR);
  failing_ = true;
  if (!inUse()) finish(lock);
}

void Stream::endIfFailing() {
  Lock lock(mutex_);
  if (failing_ && !inUse()) finish(lock);
}

void Stream::finish(Lock& lock) {
  failing_ = false;
  if (fd_) loop().forget(fd_.get());
  fd_.reset();
  Settlements done;
  abandon(failure_, done);
  const bool again = !forGood_ && retry_.failed(loop().now(), std::exchange(refused_, false));
  phase_ = again ? Phase::idle : Phase::down;
  lock.unlock();
  done.deliver(events());
  context_.wake();
  lock.lock();
  ended_.notify_all();
}

}  // namespace mooncake::tcp
