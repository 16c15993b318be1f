// Every way of reaching a peer's memory moves the right bytes, both ways, and says which way it was.
#include "test/shm/support.h"

#include "checksum/crc64.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

using namespace mooncake;
using namespace mooncake::test;
using namespace mooncake::shmtest;

namespace {

/** Reads and writes all three segments by `reach`, in blocks of several sizes, and compares with what the owner has. */
void roundTrip(const char* reach, const char* expectedDetail, OwnerProcess& owner) {
  REQUIRE(owner.ready);
  Grantee grantee(owner, {{"reach", reach}});
  for (const bool verify : {true, false}) {
    for (const u64 block : {u64{4097}, u64{64 << 10}, u64{3 << 20}}) {
      for (const Announced& remote : {owner.shared, owner.readOnly, owner.foreign}) {
        std::memset(grantee.data.data(), 0, grantee.data.size());
        const BatchResult read = grantee.move(Op::read, remote, block, verify);
        if (!read.status.ok()) std::fprintf(stderr, "  %s: %s\n", reach, read.status.detail.c_str());
        CHECK(read.status.ok());
        CHECK(read.verifiedBytes == (verify ? remote.length : 0));
        CHECK(std::to_string(crc64(grantee.data.data(), remote.length, 0)) == owner.ask("sum " + std::to_string(remote.id)));

        fill(grantee.data.data(), grantee.data.size(), block + remote.id);
        const BatchResult write = grantee.move(Op::write, remote, block, verify);
        const u64 wanted = crc64(grantee.data.data(), remote.length, 0);
        const bool writable = remote.id != owner.readOnly.id;
        CHECK(write.status.code == (writable ? Code::ok : Code::segment));
        CHECK((std::to_string(wanted) == owner.ask("sum " + std::to_string(remote.id))) == writable);
      }
    }
  }
  const std::string statistics = grantee.engine.statistics();
  CHECK(statistics.find(expectedDetail) != std::string::npos);
  // A single small block takes the short way.
  const std::vector<Record> one = {{owner.shared.id, grantee.id, 4096, 8192, 100}};
  owner.ask("fill " + std::to_string(owner.shared.id) + " 77");
  CHECK(grantee.start(Op::read, one).get().status.ok());
  std::vector<u8> wanted(owner.shared.length);
  fill(wanted.data(), wanted.size(), 77);
  CHECK(std::memcmp(grantee.data.data() + 8192, wanted.data() + 4096, 100) == 0);
}

/** Forbids process_vm_* and io_uring_setup, as container runtimes do. */
void forbidProcessVm() {
  const u32 denied[] = {SYS_process_vm_readv, SYS_process_vm_writev, SYS_io_uring_setup};
  std::vector<sock_filter> program = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const u32 number : denied) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) != 0) {
    std::perror("seccomp");
    std::_Exit(1);
  }
}

constexpr uid_t NOBODY = 65534;

}  // namespace

TEST(shm, mapped) {
  const Folder folder;
  OwnerProcess owner({{{"directory", folder.path}}, {}, 8 << 20});
  roundTrip("mapped", "memfd mapped", owner);
}

TEST(shm, processVm) {
  if (emulatorLacks("shared memory by process_vm", "process_vm_readv")) return;
  const Folder folder;
  OwnerProcess owner({{{"directory", folder.path}}, {}, 8 << 20});
  roundTrip("vm", "other memory by process_vm", owner);
}

TEST(shm, staged) {
  const Folder folder;
  OwnerProcess owner({{{"directory", folder.path}}, {}, 8 << 20});
  roundTrip("staged", "nothing better is allowed", owner);
}

TEST(shm, filteredAsAnotherUser) {
  if (emulatorLacks("shared memory under a seccomp filter", "seccomp")) return;
  // The grantee, in a child of its own, is another user where this is root, and may not use process_vm.
  Folder folder;
  const bool root = ::geteuid() == 0;
  OwnerProcess owner({{{"directory", folder.path}, {"peers", root ? "any" : "same"}}, {}, 8 << 20});
  REQUIRE(owner.ready);
  if (root) REQUIRE(::chmod(folder.path.c_str(), 0711) == 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    if (root && (::setgid(NOBODY) != 0 || ::setuid(NOBODY) != 0)) std::_Exit(2);
    forbidProcessVm();
    failures() = 0;
    try {
      roundTrip("mapped", "staged: process_vm_readv: Operation not permitted", owner);
    } catch (const Abandon&) {
    }
    std::_Exit(failures() == 0 ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST(shm, otherUsersAreRefused) {
  if (::geteuid() != 0) return;
  Folder folder;
  OwnerProcess owner({{{"directory", folder.path}}, {}, 1 << 20});
  REQUIRE(owner.ready);
  // Even where the file system lets them through.
  REQUIRE(::chmod(folder.path.c_str(), 0711) == 0);
  REQUIRE(::chmod(owner.endpoint.settings["socket"].c_str(), 0666) == 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setuid(NOBODY) != 0) std::_Exit(2);
    Grantee grantee(owner);
    const BatchResult result = grantee.move(Op::read, owner.shared, 4096);
    std::_Exit(result.status.code == Code::peer && result.status.detail.find("user 65534") != std::string::npos ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}
