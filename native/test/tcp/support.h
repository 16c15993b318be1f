// Two ends in one process over real loopback sockets: each with its own memory, its own transport and its own threads; and
// plain blocking sockets that play a peer byte by byte.
#pragma once

#include "engine/batch.h"
#include "engine/peer.h"
#include "test/check.h"
#include "transport/copy_pool.h"
#include "transport/tcp/socket.h"
#include "transport/tcp/tcp.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace mooncake::test {

/** Bytes that differ from place to place, and from seed to seed. */
std::vector<u8> pattern(size_t length, u64 seed);

/** What was settled, in order. */
class Recorder final : public LinkEvents {
 public:
  struct Entry {
    Status status;
    bool verified = false;
  };
  void settled(Slice& slice, Status status, bool verified) override;
  /** Waits until so many slices are settled; false after ten seconds. */
  bool wait(size_t count);
  std::vector<Entry> entries();
  size_t count();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Entry> entries_;
};

/** Memory, a transport and its context. */
class End {
 public:
  explicit End(u64 generation = 1);
  ~End();

  /** Registers the vector's bytes, which must stay where they are. */
  u32 add(std::vector<u8>& bytes, bool writable = true);
  /** The port, on `host`. */
  u16 listen(const std::string& host = "127.0.0.1", u16 port = 0);
  /** Waits until a link is up (or down for good). */
  static LinkState settle(const Link& link);

  MemoryTable memory;
  CopyPool copies{1};
  TransportContext context;
  std::unique_ptr<Transport> tcp;
};

/** A client with links to a port. */
class Client {
 public:
  Client(u16 port, const Settings& more = {}, u64 generation = 0, const std::string& host = "127.0.0.1");
  ~Client();

  /** Makes a batch of records and posts its slices over the links in turn. Does not wait. */
  Batch& post(Op op, std::vector<Record> records, bool verify = true, u64 sliceBytes = 1 << 20);
  /** Posts and waits: the first failure, or success. */
  Status move(Op op, std::vector<Record> records, bool verify = true, u64 sliceBytes = 1 << 20);
  void close();

  End end{77};
  Peer peer;
  Recorder recorder;
  std::vector<std::unique_ptr<Link>> links;

 private:
  std::vector<std::unique_ptr<Batch>> batches_;
  size_t posted_ = 0;
};

/** A blocking socket with deadlines of some seconds. */
class Plain {
 public:
  explicit Plain(u16 port);
  explicit Plain(Fd fd);

  bool send(const void* bytes, size_t length);
  bool send(const std::vector<u8>& bytes) { return send(bytes.data(), bytes.size()); }
  /** Exactly so many bytes; fewer where the peer closed or nothing came. */
  std::vector<u8> receive(size_t length);
  /** The peer has closed (or reset), and sent nothing before. */
  bool closed();
  void shutdownWrite();
  int fd() const { return fd_.get(); }
  void reset() { fd_.reset(); }

 private:
  Fd fd_;
};

/** A listening socket of the test's. */
class PlainListener {
 public:
  PlainListener();
  u16 port() const { return port_; }
  int fd() const { return fd_.get(); }
  Plain accept();

 private:
  Fd fd_;
  u16 port_ = 0;
};

std::vector<u8> hex(const std::string& text);
size_t openDescriptors();
size_t threads();

}  // namespace mooncake::test
