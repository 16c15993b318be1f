// The passive role: answers handshakes, and keeps the connections that peers have made. The NIC serves their reads and writes
// without us; what is left to do is to sum ranges for peers that verify.
#pragma once

#include "transport/rdma/endpoint.h"
#include "transport/transport.h"

#include <condition_variable>
#include <list>

namespace mooncake::rdma {

/** Sums that copy threads make for peers: they hold endpoints, which go on their device's thread while there is one. */
class Sums {
 public:
  void begin() {
    const std::lock_guard lock(mutex_);
    underWay_++;
  }
  void end() {
    const std::lock_guard lock(mutex_);
    if (--underWay_ == 0) none_.notify_all();
  }
  /** Until there is none under way; each is bounded. */
  void wait() {
    std::unique_lock lock(mutex_);
    none_.wait(lock, [this] { return underWay_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  u32 underWay_ = 0;
};

/** A connection that a peer has made. */
class Served final : public Poster, public std::enable_shared_from_this<Served> {
 public:
  Served(TransportContext& context, std::shared_ptr<Sums> sums) : context_(context), sums_(std::move(sums)) {}

  /** On the device's thread, as all that follows. */
  Status open(std::shared_ptr<Device> device, const Counterpart& other, const QueuePairLimits& limits, bool messages, Shake& answer);
  void close() { endpoint_.reset(); }
  /** The peer has said that it ends, or its requests have failed. */
  bool over() const { return over_; }

  void completed(std::span<const ibv_wc> completions) override;

 private:
  struct Sum;
  void handle(std::span<const u8> bytes);

  TransportContext& context_;
  const std::shared_ptr<Sums> sums_;
  std::shared_ptr<Endpoint> endpoint_;
  std::atomic<bool> over_{false};
};

class Server {
 public:
  Server(TransportContext& context, std::string name, std::vector<std::shared_ptr<Device>> devices, const QueuePairLimits& limits)
      : context_(context), name_(std::move(name)), devices_(std::move(devices)), limits_(limits) {}
  ~Server() { close(); }

  /** Answers a peer that wants to connect; a refusal is an answer with "reply_msg". From any thread; takes some milliseconds. */
  Shake accept(const Shake& shake);

  /** Ends all connections; returns when nothing of them is left but calls of the devices' threads. Idempotent. */
  void close();

  size_t connections() const {
    const std::lock_guard lock(mutex_);
    return served_.size();
  }

 private:
  struct Connection {
    std::string key;
    std::string peer;
    std::string generation;
    std::shared_ptr<Device> device;
    std::shared_ptr<Served> served;
  };
  Status connect(const Shake& shake, Shake& answer);
  /** Ends what `gone` says, and the oldest above the limit. */
  void sweep(const std::function<bool(const Connection&)>& gone);

  TransportContext& context_;
  const std::string name_;
  const std::vector<std::shared_ptr<Device>> devices_;
  const QueuePairLimits limits_;
  const std::shared_ptr<Sums> sums_ = std::make_shared<Sums>();
  mutable std::mutex mutex_;
  /** Oldest first. */
  std::list<Connection> served_;
  bool closed_ = false;
};

/** The sum of ranges of our segments, one after another. Fails with segment, and with notSupported where
    one of them has no address here. */
Expected<u64> sumOf(MemoryTable& memory, std::span<const SumRecord> records);

}  // namespace mooncake::rdma
