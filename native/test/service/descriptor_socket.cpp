// The node service's descriptor socket: what it takes, from whom, and for how long.
#include "service/descriptor_socket.h"
#include "test/check.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

using namespace mooncake;
using namespace mooncake::service;
using namespace mooncake::test;
using std::chrono::milliseconds;

namespace {

constexpr u64 LENGTH = 1 << 16;
constexpr auto PATIENCE = milliseconds(5000);

struct Place {
  Place() {
    char name[] = "/tmp/mooncake-fd-XXXXXX";
    folder = ::mkdtemp(name);
  }
  ~Place() { ::rmdir(folder.c_str()); }
  std::string path() const { return folder + "/s.fd"; }
  std::string folder;
};

Fd memory(u64 length, int seals) {
  Fd fd(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (::ftruncate(fd.get(), static_cast<off_t>(length)) != 0 || ::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) return {};
  return fd;
}

Ticket ticketOf(u8 first) {
  Ticket ticket{};
  ticket[0] = first;
  return ticket;
}

bool until(const std::function<bool()>& done) {
  for (int i = 0; i < 1000 && !done(); i++) std::this_thread::sleep_for(milliseconds(5));
  return done();
}

}  // namespace

TEST(descriptors, handed_over_once_to_the_process_that_named_it) {
  const Place place;
  Expected<std::unique_ptr<DescriptorSocket>> socket = DescriptorSocket::listen(place.path());
  REQUIRE(socket.ok());
  struct stat status{};
  CHECK(::stat(place.path().c_str(), &status) == 0 && (status.st_mode & 0777) == 0600);

  const Fd fd = memory(LENGTH, F_SEAL_SHRINK);
  CHECK(handOver(place.path(), ticketOf(1), LENGTH, fd.get(), PATIENCE).ok());
  CHECK(socket.value->waiting() == 1);
  CHECK(!socket.value->take(ticketOf(1), ::getpid() + 1).ok());
  CHECK(!socket.value->take(ticketOf(2), ::getpid()).ok());
  const Expected<Fd> taken = socket.value->take(ticketOf(1), ::getpid());
  REQUIRE(taken.ok());
  struct stat ours{};
  struct stat theirs{};
  CHECK(::fstat(fd.get(), &ours) == 0 && ::fstat(taken.value.get(), &theirs) == 0 && ours.st_ino == theirs.st_ino);
  CHECK(!socket.value->take(ticketOf(1), ::getpid()).ok());
  socket.value->close();
  CHECK(::stat(place.path().c_str(), &status) != 0);
}

TEST(descriptors, what_could_end_the_service_is_refused) {
  const Place place;
  Expected<std::unique_ptr<DescriptorSocket>> socket = DescriptorSocket::listen(place.path());
  REQUIRE(socket.ok());
  const Fd fd = memory(LENGTH, F_SEAL_SHRINK);
  const Fd open = memory(LENGTH, F_SEAL_GROW);
  const Fd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const auto refused = [&](int descriptor, u64 length, const char* why) {
    const Status status = handOver(place.path(), ticketOf(3), length, descriptor, PATIENCE);
    return !status.ok() && status.detail.find(why) != std::string::npos;
  };
  CHECK(refused(open.get(), LENGTH, "F_SEAL_SHRINK"));
  CHECK(refused(file.get(), LENGTH, "no memfd"));
  CHECK(refused(fd.get(), LENGTH + 1, "announced with"));
  CHECK(refused(fd.get(), 0, "announced with"));
  CHECK(handOver(place.path(), ticketOf(3), LENGTH, fd.get(), PATIENCE).ok());
  CHECK(refused(fd.get(), LENGTH, "waits already"));
  CHECK(socket.value->waiting() == 1);
}

TEST(descriptors, allocations_of_gpus_are_told_from_memory) {
  const Place place;
  Expected<std::unique_ptr<DescriptorSocket>> socket = DescriptorSocket::listen(place.path());
  REQUIRE(socket.ok());
  const Fd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  CHECK(handOver(place.path(), ticketOf(4), LENGTH, fd.get(), PATIENCE, Handed::allocation).ok());
  CHECK(!handOver(place.path(), ticketOf(5), 0, fd.get(), PATIENCE, Handed::allocation).ok());
  CHECK(!handOver(place.path(), ticketOf(5), LENGTH, fd.get(), PATIENCE, static_cast<Handed>(2)).ok());
  // Nobody maps it by mistake.
  CHECK(!socket.value->take(ticketOf(4), ::getpid()).ok());
  CHECK(socket.value->take(ticketOf(4), ::getpid(), Handed::allocation).ok());
  CHECK(socket.value->waiting() == 0);
}

TEST(descriptors, bounded) {
  const Place place;
  Expected<std::unique_ptr<DescriptorSocket>> socket = DescriptorSocket::listen(place.path(), {milliseconds(60'000), 2, 2});
  REQUIRE(socket.ok());
  const Fd fd = memory(LENGTH, F_SEAL_SHRINK);
  CHECK(handOver(place.path(), ticketOf(1), LENGTH, fd.get(), PATIENCE).ok());
  CHECK(handOver(place.path(), ticketOf(2), LENGTH, fd.get(), PATIENCE).ok());
  CHECK(handOver(place.path(), ticketOf(3), LENGTH, fd.get(), PATIENCE).detail.find("2 descriptors") != std::string::npos);
  CHECK(socket.value->take(ticketOf(1), ::getpid()).ok());
  CHECK(handOver(place.path(), ticketOf(3), LENGTH, fd.get(), PATIENCE).ok());
}

TEST(descriptors, forgotten_after_a_while) {
  const Place place;
  Expected<std::unique_ptr<DescriptorSocket>> socket = DescriptorSocket::listen(place.path(), {milliseconds(500), 1, 2});
  REQUIRE(socket.ok());
  const Fd fd = memory(LENGTH, F_SEAL_SHRINK);
  CHECK(handOver(place.path(), ticketOf(1), LENGTH, fd.get(), PATIENCE).ok());
  CHECK(until([&] { return socket.value->waiting() == 0; }));
  CHECK(!socket.value->take(ticketOf(1), ::getpid()).ok());
  CHECK(handOver(place.path(), ticketOf(1), LENGTH, fd.get(), PATIENCE).ok());
}

TEST(descriptors, packets_of_another_form_cost_nothing_but_an_answer) {
  const Place place;
  Expected<std::unique_ptr<DescriptorSocket>> socket = DescriptorSocket::listen(place.path());
  REQUIRE(socket.ok());
  const Fd peer(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, place.path().data(), place.path().size());
  REQUIRE(::connect(peer.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  for (const size_t size : {1, 24, 25, 4000}) {
    const std::vector<u8> packet(size, 7);
    REQUIRE(::send(peer.get(), packet.data(), packet.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(size));
    u8 answer[600] = {};
    const ssize_t got = ::recv(peer.get(), answer, sizeof answer, 0);
    CHECK(got > 20 && answer[16] != 0);
  }
  CHECK(socket.value->waiting() == 0);
}
