#include "transport/tcp/stock_server.h"

#include "transport/tcp/pulse.h"

namespace mooncake::tcp {

namespace {

constexpr u64 TURN_BYTES = 4 << 20;

}  // namespace

void StockServer::begin(const u8* opening, size_t length) {
  progress_ = now();
  input_.feed(opening, length);
  work();
}

void StockServer::ready(u32) { work(); }

void StockServer::work() {
  u64 turn = 0;
  while (turn < TURN_BYTES && open() && step()) turn += Input::CAPACITY;
  if (!open()) return;
  // While we send, requests that follow wait in the socket. When the turn is used up, more may wait in the staging area, of
  // which epoll knows nothing: being writable calls us again.
  const bool sending = phase_ == Phase::reading || phase_ == Phase::refusing;
  await(sending ? EPOLLOUT : turn < TURN_BYTES ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

bool StockServer::step() {
  if (phase_ == Phase::reading || phase_ == Phase::refusing) return flush();
  if (phase_ == Phase::writing) {
    input_.drain(target_);
    if (target_.left() == 0) {
      held_.reset();
      target_.clear();
      phase_ = Phase::request;
      if (request_.status) respond(StockStatus::ok, Phase::reading);
      return true;
    }
  } else {
    input_.expect(STOCK_REQUEST_BYTES);
    if (input_.pending() >= STOCK_REQUEST_BYTES) return takeRequest();
  }
  const Filled filled = input_.fill(fd(), phase_ == Phase::writing ? &target_ : nullptr);
  if (filled == Filled::some) {
    progress_ = now();
    return true;
  }
  if (filled != Filled::later) close();
  return false;
}

bool StockServer::takeRequest() {
  Status status = readStockRequest(input_.peek(), request_);
  input_.skip(STOCK_REQUEST_BYTES);
  if (status.ok()) {
    held_ = memory_.holdAddress(request_.address, request_.size, request_.write);
    if (held_ && request_.write && !held_->writable) held_.reset();
  }
  if (!held_) {
    if (request_.status) {
      respond(StockStatus::rejected, Phase::refusing);
      return true;
    }
    close();
    return false;
  }
  u8* const from = held_->base + (request_.address - reinterpret_cast<u64>(held_->base));
  if (request_.write) {
    target_.add(from, request_.size);
    target_.begin(request_.size, false);
    phase_ = Phase::writing;
    return true;
  }
  Item item;
  if (request_.status) {
    item.head.resize(STOCK_STATUS_BYTES);
    writeStockStatus(item.head.data(), StockStatus::ok);
  }
  item.add(from, request_.size);
  item.holds.push_back(std::move(held_));
  output_.push(std::move(item));
  phase_ = Phase::reading;
  return true;
}

void StockServer::respond(StockStatus status, Phase next) {
  Item item;
  item.head.resize(STOCK_STATUS_BYTES);
  writeStockStatus(item.head.data(), status);
  output_.push(std::move(item));
  phase_ = next;
}

bool StockServer::flush() {
  const u64 before = output_.sentBytes();
  const Output::Flushed flushed = output_.flush(fd(), TURN_BYTES, [](const Item&) {});
  if (output_.sentBytes() != before) progress_ = now();
  if (flushed == Output::Flushed::failed || (flushed == Output::Flushed::all && phase_ == Phase::refusing)) {
    close();
    return false;
  }
  if (flushed != Output::Flushed::all) return false;
  phase_ = Phase::request;
  return true;
}

bool StockServer::tick() {
  if (!open()) return false;
  if (phase_ != Phase::request && now() - progress_ >= STOCK_SILENCE_MS) close();
  return false;
}

}  // namespace mooncake::tcp
