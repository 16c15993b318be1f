// Peers that die, stop, restart, take memory away, or talk nonsense.
#include "test/shm/support.h"

#include "transport/shm/channel.h"
#include "transport/shm/mapping.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <thread>

using namespace mooncake;
using namespace mooncake::test;
using namespace mooncake::shmtest;

namespace {

constexpr u64 LENGTH = 8 << 20;
#if defined(__SANITIZE_THREAD__)
constexpr int CYCLES = 60;  // a cycle takes a hundred times as long
#else
constexpr int CYCLES = 1000;
#endif

OwnerProcess::Options in(const Folder& folder, u64 length = LENGTH) { return {{{"directory", folder.path}}, {}, length}; }

bool within(const std::future<BatchResult>& future, int milliseconds) {
  return future.wait_for(std::chrono::milliseconds(milliseconds)) == std::future_status::ready;
}

/** Keeps a segment busy by batches one after the other until `stop`; the last result. */
struct Traffic {
  Traffic(Grantee& grantee, Op op, const Announced& remote)
      : thread([this, &grantee, op, remote] {
          while (!stop && last.status.ok()) {
            last = grantee.move(op, remote, 64 << 10);
            rounds++;
          }
        }) {}
  ~Traffic() {
    stop = true;
    if (thread.joinable()) thread.join();
  }
  void waitForRounds(u32 count) {
    while (rounds < count && thread.joinable()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::atomic<bool> stop{false};
  std::atomic<u32> rounds{0};
  BatchResult last;
  std::thread thread;
};

/** A peer of the socket that says what the test says. */
struct RawPeer {
  explicit RawPeer(const OwnerProcess& owner) : channel(shm::connectTo(owner.endpoint.settings.at("socket")).value) {}

  void hello(u64 generation) {
    shm::Message message;
    message.type = shm::MessageType::hello;
    message.hello.generation = 1;
    message.hello.expected = generation;
    CHECK(channel.send(message).ok());
  }
  /** The next message, waited for; Got::nothing after 5 s. */
  shm::Channel::Got next(shm::Message& message, Fd& descriptor) {
    for (int i = 0; i < 5000; i++) {
      Status why;
      const auto got = channel.receive(message, descriptor, why);
      if (got != shm::Channel::Got::nothing) return got;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return shm::Channel::Got::nothing;
  }
  /** True where the owner hangs up, perhaps after a refusal. */
  bool hungUp() {
    for (;;) {
      shm::Message message;
      Fd descriptor;
      const auto got = next(message, descriptor);
      if (got == shm::Channel::Got::closed) return true;
      if (got == shm::Channel::Got::nothing) return false;
    }
  }
  shm::Channel channel;
};

}  // namespace

TEST(shmFaults, ownerKilled) {
  for (const char* reach : {"mapped", "vm", "staged"}) {
    const Folder folder;
    OwnerProcess owner(in(folder));
    REQUIRE(owner.ready);
    Grantee grantee(owner, {{"reach", reach}});
    CHECK(grantee.move(Op::read, owner.foreign, 4096).status.ok());
    Traffic traffic(grantee, Op::write, owner.foreign);
    traffic.waitForRounds(3);
    owner.kill(SIGKILL);
    owner.join();
    traffic.thread.join();
    CHECK(traffic.last.status.code == Code::peer);
    CHECK(grantee.move(Op::read, owner.shared, 4096).status.code == Code::peer);
  }
}

TEST(shmFaults, ownerStopped) {
  for (const char* reach : {"vm", "staged"}) {
    const Folder folder;
    OwnerProcess owner(in(folder));
    REQUIRE(owner.ready);
    Grantee grantee(owner, {{"reach", reach}});
    CHECK(grantee.move(Op::read, owner.foreign, 4096).status.ok());
    owner.kill(SIGSTOP);
    // Verified: the owner has to answer. Far below the deadline of 20 s.
    auto moving = grantee.start(Op::read, grantee.records(Op::read, owner.foreign, 64 << 10));
    CHECK(within(moving, 5000));
    CHECK(moving.get().status.code == Code::peer);
    owner.kill(SIGCONT);
  }
}

TEST(shmFaults, cancelWhileTheOwnerIsStopped) {
  const Folder folder;
  OwnerProcess owner(in(folder));
  REQUIRE(owner.ready);
  Grantee grantee(owner, {{"reach", "staged"}});
  CHECK(grantee.move(Op::read, owner.foreign, 4096).status.ok());
  owner.kill(SIGSTOP);
  auto moving = grantee.start(Op::read, grantee.records(Op::read, owner.foreign, 64 << 10));
  grantee.engine.cancel(grantee.batch);
  CHECK(within(moving, 5000));
  CHECK(moving.get().status.code == Code::aborted);
  owner.kill(SIGCONT);
  // Slots that were given up come back.
  for (int i = 0; i < 5; i++) CHECK(grantee.move(Op::write, owner.foreign, 64 << 10).status.ok());
}

TEST(shmFaults, granteeKilled) {
  const Folder folder;
  OwnerProcess owner(in(folder));
  REQUIRE(owner.ready);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    Grantee grantee(owner, {{"reach", "vm"}});
    for (;;) grantee.move(Op::write, owner.foreign, 64 << 10);
  }
  while (owner.ask("sum " + std::to_string(owner.foreign.id)) == std::to_string(sumOf(LENGTH, owner.foreign.id))) {
  }
  // The grantee holds the segment while it lives (it is stopped), and no longer.
  ::kill(child, SIGSTOP);
  ::waitpid(child, nullptr, WUNTRACED);
  owner.ask("remove " + std::to_string(owner.foreign.id));
  CHECK(owner.ask("removed " + std::to_string(owner.foreign.id) + " 1500") == "no");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK(owner.ask("removed " + std::to_string(owner.foreign.id) + " 10000") == "yes");
}

TEST(shmFaults, revokedWhileCopiesRun) {
  for (const char* reach : {"mapped", "vm", "staged"}) {
    const Folder folder;
    OwnerProcess owner(in(folder));
    REQUIRE(owner.ready);
    Grantee grantee(owner, {{"reach", reach}});
    const Announced& target = std::strcmp(reach, "mapped") == 0 ? owner.shared : owner.foreign;
    Traffic traffic(grantee, Op::write, target);
    traffic.waitForRounds(3);
    owner.ask("remove " + std::to_string(target.id));
    CHECK(owner.ask("removed " + std::to_string(target.id) + " 10000") == "yes");
    if (std::strcmp(reach, "mapped") != 0) {
      // The owner uses the memory for something else: no late slice touches it.
      owner.ask("fill " + std::to_string(target.id) + " 99");
    }
    traffic.thread.join();
    CHECK(traffic.last.status.code == Code::segment);
    if (std::strcmp(reach, "mapped") != 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      CHECK(owner.ask("sum " + std::to_string(target.id)) == std::to_string(sumOf(LENGTH, 99)));
    }
    // The link and the other segments are as before.
    CHECK(grantee.move(Op::read, owner.readOnly, 64 << 10).status.ok());
    CHECK(grantee.move(Op::read, target, 64 << 10).status.code == Code::segment);
  }
}

TEST(shmFaults, stoppedGranteeOfAMappingIsNotWaitedFor) {
  const Folder folder;
  OwnerProcess owner(in(folder));
  REQUIRE(owner.ready);
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    Grantee grantee(owner);
    const char answer = grantee.move(Op::read, owner.readOnly, 4096).status.ok() ? 'y' : 'n';
    [[maybe_unused]] const ssize_t written = ::write(ready[1], &answer, 1);
    for (;;) ::pause();
  }
  char answer = 0;
  CHECK(::read(ready[0], &answer, 1) == 1 && answer == 'y');
  ::kill(child, SIGSTOP);
  owner.ask("remove " + std::to_string(owner.readOnly.id));
  CHECK(owner.ask("removed " + std::to_string(owner.readOnly.id) + " 10000") == "yes");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(shmFaults, restartedAndElsewhere) {
  const Folder folder;
  OwnerProcess first(in(folder, 1 << 20));
  REQUIRE(first.ready);
  const std::string path = first.endpoint.settings["socket"];
  struct stat status {};
  CHECK(::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode) && (status.st_mode & 0777) == 0600);
  first.kill(SIGKILL);
  first.join();
  CHECK(::lstat(path.c_str(), &status) == 0);
  // A stale socket goes when somebody listens in that directory again.
  OwnerProcess second(in(folder, 1 << 20));
  REQUIRE(second.ready);
  CHECK(::lstat(path.c_str(), &status) != 0);

  const auto resultOf = [](const OwnerProcess& owner, const char* key, const std::string& value) {
    Grantee grantee(owner, {{key, value}}, 1 << 20);
    return grantee.move(Op::read, owner.shared, 4096).status;
  };
  const auto has = [](const Status& result, const char* text) {
    return result.code == Code::peer && result.detail.find(text) != std::string::npos;
  };
  CHECK(has(resultOf(second, "socket", path), "No such file"));
  CHECK(has(resultOf(second, "host", "elsewhere"), "another host"));
  CHECK(has(resultOf(second, "file", "1:1"), "another file"));
  const u64 generation = second.generation;
  second.generation = first.generation;
  CHECK(has(resultOf(second, "peers", "same"), "generation"));
  second.generation = generation;
  CHECK(resultOf(second, "peers", "same").ok());
  // A clean end leaves nothing behind.
  second.ask("exit");
  second.join();
  CHECK(::lstat(second.endpoint.settings["socket"].c_str(), &status) != 0);
}

TEST(shmFaults, directories) {
  const Folder folder;
  Engine engine({1, 8, {"shm"}});
  const auto refused = [&](const std::string& path, const char* text) {
    const Expected<Settings> result = engine.listen("shm", {{"directory", path}});
    return result.status.code == Code::invalidArgument && result.status.detail.find(text) != std::string::npos;
  };
  CHECK(refused("relative", "absolute"));
  CHECK(refused(folder.path + "/" + std::string(100, 'x'), "too long"));
  ::rmdir((folder.path + "/" + std::string(100, 'x')).c_str());
  const std::string link = folder.path + "/link";
  REQUIRE(::symlink("/tmp", link.c_str()) == 0);
  CHECK(refused(link, "link"));
  REQUIRE(::chmod(folder.path.c_str(), 0777) == 0);
  CHECK(refused(folder.path, "other users"));
  REQUIRE(::chmod(folder.path.c_str(), 0700) == 0);
  CHECK(engine.listen("shm", {{"directory", folder.path}, {"peers", "some"}}).status.code == Code::invalidArgument);
  CHECK(engine.listen("shm", {{"directory", folder.path}}).ok());
}

TEST(shmFaults, nonsense) {
  const Folder folder;
  OwnerProcess owner(in(folder, 1 << 20));
  REQUIRE(owner.ready);
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; round++) {
    RawPeer peer(owner);
    if (round % 2 == 0) peer.hello(owner.generation);
    // Random bytes, sometimes behind a plausible type.
    std::vector<u8> packet(1 + random() % 200);
    for (u8& byte : packet) byte = static_cast<u8>(random());
    if (round % 3 == 0) packet[0] = static_cast<u8>(1 + random() % 12);
    CHECK(::send(peer.channel.fd(), packet.data(), packet.size(), MSG_NOSIGNAL) >= 0);
    CHECK(peer.hungUp());
  }
  const auto afterHello = [&](shm::Message message, Fd descriptor = Fd()) {
    RawPeer peer(owner);
    peer.hello(owner.generation);
    CHECK(peer.channel.send(message, std::move(descriptor)).ok());
    return peer.hungUp();
  };
  shm::Message message;
  message.type = shm::MessageType::stage;
  message.pieces = {{owner.shared.id, 0, 0, 16}};
  CHECK(afterHello(message));  // no ring
  message.type = shm::MessageType::ring;
  message.pieces.clear();
  message.ring = {16, 1 << 16};
  CHECK(afterHello(message));  // no descriptor
  // A ring that can be shrunk, and one that is shorter than it says.
  Fd loose(static_cast<int>(::syscall(SYS_memfd_create, "loose", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  REQUIRE(::ftruncate(loose.get(), 1 << 20) == 0);
  CHECK(afterHello(message, std::move(loose)));
  Fd small;
  const auto mapping = shm::Mapping::create(4096, small);
  CHECK(afterHello(message, std::move(small)));
  message.type = shm::MessageType::ping;
  CHECK(afterHello(message, Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC))));  // a descriptor where none belongs
  // Ranges outside of segments are refused without an end of the connection.
  RawPeer peer(owner);
  peer.hello(owner.generation);
  Fd descriptor;
  CHECK(peer.next(message, descriptor) == shm::Channel::Got::message && message.type == shm::MessageType::hello);
  shm::Message ring;
  ring.type = shm::MessageType::ring;
  ring.ring = {1, 4096};
  Fd shared;
  const auto mapped = shm::Mapping::create(4096, shared);
  CHECK(peer.channel.send(ring, std::move(shared)).ok());
  for (const shm::WirePiece piece : {shm::WirePiece{owner.shared.id, 0, 1 << 20, 1}, shm::WirePiece{12345, 0, 0, 1},
                                     shm::WirePiece{owner.shared.id, 0, ~u64{0} - 1, 1}}) {
    shm::Message stage;
    stage.type = shm::MessageType::stage;
    stage.pieces = {piece};
    CHECK(peer.channel.send(stage).ok());
    CHECK(peer.next(message, descriptor) == shm::Channel::Got::message && message.type == shm::MessageType::done);
    CHECK(message.code == Code::segment);
  }
  // And after all that it serves.
  Grantee grantee(owner, {}, 1 << 20);
  CHECK(grantee.move(Op::read, owner.shared, 4096).status.ok());
}

TEST(shmFaults, mappingsThatLie) {
  Fd loose(static_cast<int>(::syscall(SYS_memfd_create, "loose", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  REQUIRE(::ftruncate(loose.get(), 8192) == 0);
  CHECK(shm::Mapping::open(loose.get(), 0, 8192, true).status.code == Code::notSupported);
  REQUIRE(::fcntl(loose.get(), F_ADD_SEALS, F_SEAL_SHRINK) == 0);
  CHECK(shm::Mapping::open(loose.get(), 0, 8193, true).status.code == Code::protocol);
  CHECK(shm::Mapping::open(loose.get(), 8192, 1, true).status.code == Code::protocol);
  CHECK(shm::Mapping::open(loose.get(), ~u64{0}, 2, true).status.code == Code::protocol);
  CHECK(!shm::Mapping::open(STDIN_FILENO, 0, 1, true).ok());
  auto mapping = shm::Mapping::open(loose.get(), 5000, 100, true);
  REQUIRE(mapping.ok());
  mapping.value.data()[99] = 7;
  u8 seen = 0;
  CHECK(::pread(loose.get(), &seen, 1, 5099) == 1 && seen == 7);
}

TEST(shmFaults, nothingLeaks) {
  const Folder folder;
  OwnerProcess owner(in(folder, 1 << 20));
  REQUIRE(owner.ready);
  const auto cycle = [&](int round) {
    static const char* const reaches[] = {"mapped", "vm", "staged"};
    Grantee grantee(owner, {{"reach", reaches[round % 3]}}, 64 << 10);
    const Announced& remote = round % 2 == 0 ? owner.shared : owner.foreign;
    CHECK(grantee.start(round % 2 == 0 ? Op::read : Op::write,
                        grantee.records(round % 2 == 0 ? Op::read : Op::write, remote, 4096))
              .get()
              .status.ok());
  };
  const auto ownerHas = [&](const char* what) {
    const std::string path = "/proc/" + std::to_string(owner.pid) + "/" + what;
    const std::string command = "ls " + path + " | wc -l";
    std::FILE* const pipe = ::popen(command.c_str(), "re");
    int count = 0;
    CHECK(std::fscanf(pipe, "%d", &count) == 1);
    ::pclose(pipe);
    return count;
  };
  for (int round = 0; round < 6; round++) cycle(round);
  const size_t descriptors = openDescriptors();
  const size_t mappings = memfdMappings();
  const size_t running = threads();
  const int ownerDescriptors = ownerHas("fd");
  const int ownerThreads = ownerHas("task");
  for (int round = 0; round < CYCLES; round++) cycle(round);
  CHECK(openDescriptors() == descriptors);
  CHECK(memfdMappings() == mappings);
  // A thread that was joined is listed until the kernel has taken it down, and the owner learns of the last hang-up a
  // little later.
  for (int i = 0; i < 100 && threads() > running; i++) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(threads() == running);
  for (int i = 0; i < 100 && ownerHas("fd") > ownerDescriptors; i++) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(ownerHas("fd") <= ownerDescriptors);
  CHECK(ownerHas("task") <= ownerThreads);
}
