// Local peers that ask for too much, or hold on to what they got.
#include "test/shm/support.h"

#include "transport/shm/channel.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <thread>

using namespace mooncake;
using namespace mooncake::test;
using namespace mooncake::shmtest;

namespace {

constexpr u64 LENGTH = 1 << 20;

OwnerProcess::Options in(const Folder& folder) { return {{{"directory", folder.path}}, {}, LENGTH}; }

/** Says what the test says, and waits some seconds for answers. */
struct RawPeer {
  explicit RawPeer(const OwnerProcess& owner) : channel(shm::connectTo(owner.endpoint.settings.at("socket")).value) {}

  bool greet(u64 generation) {
    shm::Message message;
    message.type = shm::MessageType::hello;
    message.hello.generation = 1;
    message.hello.expected = generation;
    return channel.send(message).ok() && next(message) == shm::Channel::Got::message;
  }
  shm::Channel::Got next(shm::Message& message) {
    for (int i = 0; i < 10'000; i++) {
      Status why;
      Fd descriptor;
      const auto got = channel.receive(message, descriptor, why);
      if (got != shm::Channel::Got::nothing) return got;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return shm::Channel::Got::nothing;
  }
  bool hungUp() {
    shm::Message message;
    auto got = next(message);
    while (got == shm::Channel::Got::message) got = next(message);
    return got == shm::Channel::Got::closed;
  }
  shm::Channel channel;
};

/** A packet without bytes, with descriptors. */
bool sendEmpty(int socket, int descriptor, int count) {
  msghdr header{};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)] = {};
  header.msg_control = control;
  header.msg_controllen = CMSG_SPACE(sizeof(int) * static_cast<size_t>(count));
  cmsghdr* const item = CMSG_FIRSTHDR(&header);
  item->cmsg_level = SOL_SOCKET;
  item->cmsg_type = SCM_RIGHTS;
  item->cmsg_len = CMSG_LEN(sizeof(int) * static_cast<size_t>(count));
  for (int i = 0; i < count; i++) std::memcpy(CMSG_DATA(item) + sizeof(int) * static_cast<size_t>(i), &descriptor, sizeof descriptor);
  return ::sendmsg(socket, &header, MSG_NOSIGNAL) == 0;
}

}  // namespace

TEST(shmAbuse, descriptorsWithoutAMessage) {
  const Folder folder;
  OwnerProcess owner(in(folder));
  REQUIRE(owner.ready);
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const auto count = [&] {
    const std::string command = "ls -l /proc/" + std::to_string(owner.pid) + "/fd | grep -c /dev/null";
    std::FILE* const pipe = ::popen(command.c_str(), "re");
    int found = -1;
    CHECK(std::fscanf(pipe, "%d", &found) == 1);
    ::pclose(pipe);
    return found;
  };
  const int before = count();
  for (int i = 0; i < 5; i++) {
    RawPeer peer(owner);
    REQUIRE(sendEmpty(peer.channel.fd(), null.get(), 8));
    CHECK(peer.hungUp());
  }
  CHECK(count() == before);
}

TEST(shmAbuse, strangersWhoSayNothing) {
  const Folder folder;
  OwnerProcess owner(in(folder));
  REQUIRE(owner.ready);
  RawPeer silent(owner);
  RawPeer greeted(owner);
  REQUIRE(greeted.greet(owner.generation));
  CHECK(silent.hungUp());
  // Whoever has said hello may be silent afterwards.
  shm::Message ping;
  ping.type = shm::MessageType::ping;
  CHECK(greeted.channel.send(ping).ok());
  CHECK(greeted.next(ping) == shm::Channel::Got::message && ping.type == shm::MessageType::pong);
}

TEST(shmAbuse, noDescriptorsLeft) {
  const Folder folder;
  OwnerProcess::Options options = in(folder);
  options.prepare = [] {
    const rlimit few{40, 40};
    ::setrlimit(RLIMIT_NOFILE, &few);
  };
  OwnerProcess owner(options);
  REQUIRE(owner.ready);
  std::vector<std::unique_ptr<RawPeer>> strangers;
  for (int i = 0; i < 60; i++) strangers.push_back(std::make_unique<RawPeer>(owner));
  const auto ticks = [&] {
    std::FILE* const file = std::fopen(("/proc/" + std::to_string(owner.pid) + "/stat").c_str(), "re");
    long user = 0;
    long system = 0;
    CHECK(std::fscanf(file, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user, &system) == 2);
    std::fclose(file);
    return user + system;
  };
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const long before = ticks();
  std::this_thread::sleep_for(std::chrono::milliseconds(1000));
  // The owner waits, and does not ask over and over: of a hundred ticks of the processor it needs few.
  CHECK(ticks() - before < 30);
  // When they have gone, others are served.
  strangers.clear();
  Grantee grantee(owner, {}, 64 << 10);
  CHECK(grantee.move(Op::read, owner.shared, 4096).status.ok());
}

TEST(shmAbuse, memoryThatOutlivesItsSegment) {
  // A stopped grantee could still write what it has mapped: where the memory is the process's, and not the segment's, the owner
  // waits for it.
  const Folder folder;
  OwnerProcess::Options options = in(folder);
  options.processMemory = true;
  OwnerProcess owner(options);
  REQUIRE(owner.ready);
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    Grantee grantee(owner, {}, 64 << 10);
    const char answer = grantee.move(Op::write, owner.shared, 4096).status.ok() &&
                                grantee.engine.statistics().find("not mapped") == std::string::npos
                            ? 'y'
                            : 'n';
    [[maybe_unused]] const ssize_t written = ::write(ready[1], &answer, 1);
    for (;;) ::pause();
  }
  char answer = 0;
  CHECK(::read(ready[0], &answer, 1) == 1 && answer == 'y');
  ::kill(child, SIGSTOP);
  ::waitpid(child, nullptr, WUNTRACED);
  const std::string id = std::to_string(owner.shared.id);
  owner.ask("remove " + id);
  CHECK(owner.ask("removed " + id + " 2000") == "no");
  ::kill(child, SIGCONT);
  CHECK(owner.ask("removed " + id + " 10000") == "yes");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(shmAbuse, stagedWritesThatWereGivenUp) {
  // Settled when the owner has said that it is over, or when the connection has ended: what is written next stays.
  const Folder folder;
  OwnerProcess owner(in(folder));
  REQUIRE(owner.ready);
  Grantee grantee(owner, {{"reach", "staged"}});
  CHECK(grantee.move(Op::read, owner.foreign, 4096).status.ok());
  owner.kill(SIGSTOP);
  auto moving = grantee.start(Op::write, grantee.records(Op::write, owner.foreign, 64 << 10));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  grantee.engine.cancel(grantee.batch);
  // The owner has the request and may serve it at any time: not over yet.
  CHECK(moving.wait_for(std::chrono::milliseconds(100)) == std::future_status::timeout);
  owner.kill(SIGCONT);
  CHECK(moving.get().status.code == Code::aborted);
  fill(grantee.data.data(), grantee.data.size(), 5);
  CHECK(grantee.move(Op::write, owner.foreign, 64 << 10).status.ok());
}
