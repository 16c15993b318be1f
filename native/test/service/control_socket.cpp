// A client's end of a control socket, against a plain listener.
#include "service/control_socket.h"
#include "test/check.h"
#include "transport/shm/unix_socket.h"

#include <unistd.h>

#include <array>
#include <cstdlib>
#include <vector>

using namespace mooncake;
using namespace mooncake::service;
using std::chrono::milliseconds;

namespace {

constexpr auto PATIENCE = milliseconds(30'000);

/** A listener at a path of its own, with the one connection that was made to it. */
struct Service {
  Service() {
    char name[] = "/tmp/mooncake-control-XXXXXX";
    folder = ::mkdtemp(name);
    path = folder + "/s";
    listener = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Expected<sockaddr_un> address = shm::unixAddress(path);
    if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address.value), sizeof address.value) != 0) return;
    if (::listen(listener.get(), 1) != 0) return;
    Expected<ControlSocket> connected = ControlSocket::connect(path);
    if (!connected.ok()) return;
    client = std::move(connected.value);
    peer = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
  ~Service() {
    ::unlink(path.c_str());
    ::rmdir(folder.c_str());
  }

  std::string folder, path;
  Fd listener, peer;
  ControlSocket client;
};

}  // namespace

TEST(control, bytes_go_both_ways_and_nothing_waits_but_wait) {
  Service service;
  REQUIRE(service.peer);
  std::array<u8, 16> area{};
  const Expected<size_t> none = service.client.receive(area);
  CHECK(none.ok() && none.value == 0);
  CHECK(!service.client.wait(false, milliseconds(1)));
  CHECK(service.client.wait(true, PATIENCE));

  const std::array<u8, 3> sent{1, 2, 3};
  const Expected<size_t> taken = service.client.send(sent);
  CHECK(taken.ok() && taken.value == 3);
  CHECK(::read(service.peer.get(), area.data(), area.size()) == 3 && area[2] == 3);

  REQUIRE(::write(service.peer.get(), "answer", 6) == 6);
  CHECK(service.client.wait(false, PATIENCE));
  const Expected<size_t> received = service.client.receive(area);
  CHECK(received.ok() && received.value == 6 && area[0] == 'a');
}

TEST(control, a_peer_that_does_not_read_leaves_no_room) {
  Service service;
  REQUIRE(service.peer);
  const std::vector<u8> bytes(1 << 20, 7);
  size_t sent = 0;
  for (;;) {
    const Expected<size_t> taken = service.client.send(bytes);
    REQUIRE(taken.ok());
    if (taken.value == 0) break;
    sent += taken.value;
  }
  // An answer that comes meanwhile is not missed.
  CHECK(!service.client.wait(true, milliseconds(1)));
  REQUIRE(::write(service.peer.get(), "x", 1) == 1);
  CHECK(service.client.wait(true, PATIENCE));
  std::vector<u8> area(sent);
  for (size_t read = 0; read < sent;) {
    const ssize_t got = ::read(service.peer.get(), area.data(), sent - read);
    REQUIRE(got > 0);
    read += static_cast<size_t>(got);
  }
  const Expected<size_t> again = service.client.send(bytes);
  CHECK(again.ok() && again.value > 0);
}

TEST(control, ends_are_told_apart) {
  Service service;
  REQUIRE(service.peer);
  const Expected<int> copy = service.client.duplicate();
  REQUIRE(copy.ok());
  const Fd loop(copy.value);
  std::array<u8, 16> area{};
  REQUIRE(::shutdown(service.peer.get(), SHUT_WR) == 0);
  CHECK(service.client.wait(false, PATIENCE));
  CHECK(service.client.receive(area).status.code == Code::closed);
  // Its other side is still open.
  CHECK(service.client.send(area).ok());
  service.peer.reset();
  CHECK(service.client.send(area).status.code == Code::peer);
  service.client = {};
  CHECK(service.client.send(area).status.code == Code::peer);
  CHECK(ControlSocket::connect(service.folder + "/nobody").status.code == Code::peer);
  CHECK(ControlSocket::connect("").status.code == Code::invalidArgument);
}
