#include "test/tcp/support.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/time.h>

#include <chrono>
#include <thread>

namespace mooncake::test {

namespace {

using namespace std::chrono_literals;

void blocking(int fd) {
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  const timeval limit{10, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

size_t entriesOf(const char* folder) {
  DIR* const directory = ::opendir(folder);
  size_t count = 0;
  while (::readdir(directory) != nullptr) count++;
  ::closedir(directory);
  return count;
}

}  // namespace

std::vector<u8> pattern(size_t length, u64 seed) {
  std::vector<u8> bytes(length);
  u64 state = seed * 0x9E3779B97F4A7C15 + 1;
  for (u8& byte : bytes) {
    state = state * 6364136223846793005 + 1442695040888963407;
    byte = static_cast<u8>(state >> 56);
  }
  return bytes;
}

void Recorder::settled(Slice&, Status status, bool verified) {
  const std::lock_guard lock(mutex_);
  entries_.push_back({std::move(status), verified});
  changed_.notify_all();
}

bool Recorder::wait(size_t count) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, 10s, [&] { return entries_.size() >= count; });
}

std::vector<Recorder::Entry> Recorder::entries() {
  const std::lock_guard lock(mutex_);
  return entries_;
}

size_t Recorder::count() {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

End::End(u64 generation) : context{memory, copies, generation, [] {}, nullptr}, tcp(makeTcpTransport(context)) {}

End::~End() { tcp->close(); }

u32 End::add(std::vector<u8>& bytes, bool writable) {
  Segment segment;
  segment.base = bytes.data();
  segment.length = bytes.size();
  segment.writable = writable;
  const Expected<u32> id = memory.add(segment, nullptr);
  REQUIRE(id.ok());
  return id.value;
}

u16 End::listen(const std::string& host, u16 port) {
  const Expected<Settings> settings = tcp->listen({{"host", host}, {"port", std::to_string(port)}});
  REQUIRE(settings.ok());
  CHECK(settings.value.at("host") == host);
  return static_cast<u16>(std::stoul(settings.value.at("port")));
}

LinkState End::settle(const Link& link) {
  for (int i = 0; i < 2000 && link.state() == LinkState::connecting; i++) std::this_thread::sleep_for(5ms);
  return link.state();
}

Client::Client(u16 port, const Settings& more, u64 generation, const std::string& host) : peer("peer", generation) {
  Settings settings = more;
  settings["host"] = host;
  settings["port"] = std::to_string(port);
  auto opened = end.tcp->open(settings, peer, recorder);
  REQUIRE(opened.ok());
  links = std::move(opened.value);
  for (const auto& link : links) End::settle(*link);
}

Client::~Client() { close(); }

void Client::close() {
  for (const auto& link : links) link->close();
}

Batch& Client::post(Op op, std::vector<Record> records, bool verify, u64 sliceBytes) {
  const auto deadline = Clock::now() + 60s;
  batches_.push_back(std::make_unique<Batch>(batches_.size() + 1, op, verify, deadline, std::move(records)));
  Batch& batch = *batches_.back();
  const Status prepared = batch.prepare(end.memory, &peer, {sliceBytes, 4096});
  if (!prepared.ok()) std::fprintf(stderr, "  %s\n", prepared.detail.c_str());
  REQUIRE(prepared.ok());
  for (Slice& slice : batch.slices()) links[posted_++ % links.size()]->post(slice);
  return batch;
}

Status Client::move(Op op, std::vector<Record> records, bool verify, u64 sliceBytes) {
  const size_t before = posted_;
  post(op, std::move(records), verify, sliceBytes);
  REQUIRE(recorder.wait(posted_));
  const auto entries = recorder.entries();
  for (size_t i = before; i < entries.size(); i++) {
    if (!entries[i].status.ok()) return entries[i].status;
    CHECK(entries[i].verified == (verify && links[0]->capabilities().verify));
  }
  return {};
}

Plain::Plain(u16 port) {
  const auto addresses = tcp::resolve("127.0.0.1", std::to_string(port), true);
  fd_ = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(fd_.get(), addresses.value[0].get(), addresses.value[0].length) == 0);
  blocking(fd_.get());
}

Plain::Plain(Fd fd) : fd_(std::move(fd)) { blocking(fd_.get()); }

bool Plain::send(const void* bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    const ssize_t count = ::send(fd_.get(), static_cast<const u8*>(bytes) + done, length - done, MSG_NOSIGNAL);
    if (count <= 0) return false;
    done += static_cast<size_t>(count);
  }
  return true;
}

std::vector<u8> Plain::receive(size_t length) {
  std::vector<u8> bytes(length);
  size_t done = 0;
  while (done < length) {
    const ssize_t count = ::recv(fd_.get(), bytes.data() + done, length - done, 0);
    if (count <= 0) break;
    done += static_cast<size_t>(count);
  }
  bytes.resize(done);
  return bytes;
}

bool Plain::closed() {
  u8 byte;
  const ssize_t count = ::recv(fd_.get(), &byte, 1, 0);
  return count == 0 || (count < 0 && errno == ECONNRESET);
}

void Plain::shutdownWrite() { ::shutdown(fd_.get(), SHUT_WR); }

PlainListener::PlainListener() {
  const auto addresses = tcp::resolve("127.0.0.1", "0", true);
  auto fd = tcp::listenOn(addresses.value[0]);
  REQUIRE(fd.ok());
  fd_ = std::move(fd.value);
  port_ = tcp::localAddress(fd_).value.port();
}

Plain PlainListener::accept() {
  pollfd wanted{fd_.get(), POLLIN, 0};
  REQUIRE(::poll(&wanted, 1, 10'000) == 1);
  return Plain(Fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
}

std::vector<u8> hex(const std::string& text) {
  std::vector<u8> bytes;
  std::string digits;
  for (const char c : text) {
    if (c == ' ') continue;
    digits += c;
    if (digits.size() == 2) {
      bytes.push_back(static_cast<u8>(std::stoul(digits, nullptr, 16)));
      digits.clear();
    }
  }
  return bytes;
}

size_t openDescriptors() { return entriesOf("/proc/self/fd"); }
size_t threads() { return entriesOf("/proc/self/task"); }

}  // namespace mooncake::test
