// What goes wrong with files: they end too early, are full, may not be written; batches that are given up;
// kernels that forbid io_uring; and what is left open after many links.
#include "test/check.h"
#include "test/file/fixture.h"

#include "engine/engine.h"
#include "transport/file/ring.h"
#include "transport/file/uring_abi.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <future>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mooncake::file::test {

namespace {

bool names(const Status& status, const std::string& what) {
  return status.detail.find(what) != std::string::npos;
}

size_t entries(const char* folder) {
  const std::filesystem::directory_iterator all(folder);
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

/** Answers one system call of this process with an error from now on. */
bool forbid(long call, int error) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<u32>(call), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<u32>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{4, filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/** Runs in a child, so that what it forbids itself ends with it; its exit code. */
template <class Body> int inChild(Body&& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

} // namespace

TEST(file_faults, reading_past_the_end_is_a_segment_error) {
  for (const Mode& mode : modes()) {
    const Folder folder;
    writeFile(folder.at("f"), Bytes(1 << 20, 5));
    Driver driver(mode.io);
    const Expected<u32> file = openFile(driver.memory, folder.at("f"), {0, true, mode.direct});
    REQUIRE(file.ok());
    Bytes bytes(1 << 20, 9);
    const u32 memory = addMemory(driver.memory, bytes);
    for (const u64 left : {u64{500'000}, u64{4096}, u64{0}}) {
      std::filesystem::resize_file(folder.at("f"), left);
      const Status status = driver.copy({{file.value, memory, 0, 0, bytes.size()}});
      CHECK(status.code == Code::segment);
      CHECK(names(status, folder.at("f")));
    }
    // Writing makes it longer again, and the link goes on.
    CHECK(driver.copy({{memory, file.value, 0, 0, bytes.size()}}).ok());
    CHECK(driver.copy({{file.value, memory, 0, 0, bytes.size()}}).ok());
  }
}

TEST(file_faults, a_file_opened_for_reading_is_not_written) {
  const Folder folder;
  writeFile(folder.at("f"), Bytes(10'000, 5));
  for (const Mode& mode : modes()) {
    Driver driver(mode.io);
    const Expected<u32> file = openFile(driver.memory, folder.at("f"), {0, false, mode.direct});
    REQUIRE(file.ok());
    Bytes bytes(10'000, 9);
    CHECK(driver.copy({{addMemory(driver.memory, bytes), file.value, 0, 0, 10'000}}).code == Code::segment);
    CHECK(readFile(folder.at("f")) == Bytes(10'000, 5));
  }
}

TEST(file_faults, a_full_file_system_is_a_system_error_that_names_the_file) {
  if (geteuid() != 0) {
    std::fprintf(stderr, "  SKIP a full file system: only root can mount one\n");
    return;
  }
  const Folder folder;
  if (mount("tmpfs", folder.at("").c_str(), "tmpfs", 0, "size=1m") != 0) {
    std::fprintf(stderr, "  SKIP a full file system: mount: %s\n",
                 std::generic_category().message(errno).c_str());
    return;
  }
  for (const Mode& mode : modes()) {
    Driver driver(mode.io);
    const Expected<u32> refused = openFile(driver.memory, folder.at("large"), {2 << 20, true, mode.direct});
    CHECK(refused.status.code == Code::system);
    CHECK(names(refused.status, folder.at("large")));
    CHECK(!std::filesystem::exists(folder.at("large")));
    // Holes are promised no space.
    writeFile(folder.at("f"), {});
    std::filesystem::resize_file(folder.at("f"), 4 << 20);
    const Expected<u32> file = openFile(driver.memory, folder.at("f"), {0, true, mode.direct});
    REQUIRE(file.ok());
    Bytes bytes(4 << 20, 9);
    const u32 memory = addMemory(driver.memory, bytes);
    const Status status = driver.copy({{memory, file.value, 0, 0, bytes.size()}});
    CHECK(status.code == Code::system);
    CHECK(names(status, folder.at("f")));
    std::filesystem::remove(folder.at("f"));
  }
  CHECK(umount(folder.at("").c_str()) == 0);
}

TEST(file_faults, a_batch_given_up_settles_and_the_link_goes_on) {
  for (const Mode& mode : modes()) {
    const Folder folder;
    writeFile(folder.at("f"), Bytes(8 << 20, 5));
    Driver driver(mode.io);
    const Expected<u32> file = openFile(driver.memory, folder.at("f"), {0, true, mode.direct});
    REQUIRE(file.ok());
    Bytes bytes(8 << 20);
    const u32 memory = addMemory(driver.memory, bytes);
    std::vector<Record> records;
    for (u64 at = 0; at + 8191 <= bytes.size(); at += 8192)
      records.push_back({file.value, memory, at, at, 8191});
    const Status status = driver.copy(records, 64 << 10, [&](Batch& batch) { driver.link.cancel(batch); });
    CHECK(status.ok() || status.code == Code::aborted);
    CHECK(driver.settledSlices > 100);
    CHECK(driver.copy(records).ok());
    for (const Record& record : records)
      CHECK(bytes[record.destinationOffset + record.length - 1] == 5);
  }
}

TEST(file_faults, a_closed_link_settles_what_it_has_and_what_comes) {
  for (const Mode& mode : modes()) {
    const Folder folder;
    writeFile(folder.at("f"), Bytes(4 << 20, 5));
    Driver driver(mode.io);
    const Expected<u32> file = openFile(driver.memory, folder.at("f"), {0, true, mode.direct});
    REQUIRE(file.ok());
    Bytes bytes(4 << 20);
    const u32 memory = addMemory(driver.memory, bytes);
    const std::vector<Record> records{{file.value, memory, 0, 0, bytes.size()}};
    const Status status = driver.copy(records, 64 << 10, [&](Batch&) { driver.link.close(); });
    CHECK(status.ok() || status.code == Code::closed);
    CHECK(driver.copy(records).code == Code::closed);
    CHECK(driver.link.state() == LinkState::down);
  }
}

TEST(file_faults, threads_take_over_where_io_uring_is_forbidden) {
  if (mooncake::test::emulatorLacks("threads take over where io_uring is forbidden", "seccomp")) return;
  const Folder folder;
  writeFile(folder.at("f"), Bytes(100'000, 5));
  for (const int error : {EPERM, ENOSYS}) {
    const int result = inChild([&] {
      if (!forbid(uring::SETUP_CALL, error)) return 1;
      if (uring::Ring::open(8).status.code != Code::notSupported) return 2;
      Driver driver(Io::any);
      const Expected<u32> file = openFile(driver.memory, folder.at("f"), {0, true, true});
      Bytes bytes(100'000);
      const u32 memory = addMemory(driver.memory, bytes);
      if (!driver.copy({{file.value, memory, 0, 0, bytes.size()}}).ok()) return 3;
      if (bytes != Bytes(100'000, 5)) return 4;
      // Who insists gets the reason.
      Driver strict(Io::uring);
      const Expected<u32> again = openFile(strict.memory, folder.at("f"), {0, true, true});
      const Status status = strict.copy({{again.value, addMemory(strict.memory, bytes), 0, 0, 4096}});
      return status.code == Code::notSupported && names(status, "io_uring_setup") ? 0 : 5;
    });
    CHECK(result == 0);
  }
}

TEST(file_faults, a_ring_that_is_forbidden_later_ends_its_slices) {
  if (!uring::Ring::open(1).ok()) return;
  const Folder folder;
  writeFile(folder.at("f"), Bytes(100'000, 5));
  const int result = inChild([&] {
    Driver driver(Io::uring);
    const Expected<u32> file = openFile(driver.memory, folder.at("f"), {0, true, true});
    Bytes bytes(100'000);
    const std::vector<Record> records{{file.value, addMemory(driver.memory, bytes), 0, 0, bytes.size()}};
    // The thread of the ring inherits the filter.
    if (!forbid(uring::ENTER_CALL, EPERM)) return 1;
    const Status status = driver.copy(records);
    if (status.ok() || !names(status, "io_uring_enter")) return 2;
    return driver.copy(records).ok() || driver.link.state() != LinkState::down ? 3 : 0;
  });
  CHECK(result == 0);
}

TEST(file_faults, through_the_engine_also_where_verification_is_asked_for) {
  const Folder folder;
  Engine engine({});
  const Expected<u32> file = engine.openFile(folder.at("f"), 3 << 20, true);
  REQUIRE(file.ok());
  std::mt19937_64 random(5);
  Bytes source = randomBytes(random, 3 << 20);
  Bytes back(3 << 20);
  const u32 from = addMemory(engine.memory(), source);
  const u32 into = addMemory(engine.memory(), back);
  const auto move = [&](std::vector<Record> records) {
    BatchSpec spec;
    spec.records = std::move(records);
    spec.deadline = Clock::now() + std::chrono::seconds(30);
    spec.verify = true;
    auto promise = std::make_shared<std::promise<BatchResult>>();
    const Expected<u64> submitted = engine.submit(
        std::move(spec), [promise](u64, BatchResult result) { promise->set_value(std::move(result)); });
    if (!submitted.ok()) return BatchResult{submitted.status};
    return promise->get_future().get();
  };
  const BatchResult written = move({{from, file.value, 1, 1, source.size() - 1}});
  CHECK(written.status.ok());
  CHECK(written.bytes == source.size() - 1);
  CHECK(written.verifiedBytes == 0);
  // Memory and files in one batch.
  const BatchResult read = move({{file.value, into, 1, 1, 2 << 20}, {from, into, 0, 0, 1}});
  CHECK(read.status.ok());
  CHECK(read.verifiedBytes <= 1);
  CHECK(std::equal(back.begin(), back.begin() + (2 << 20), source.begin()));
  engine.close();
}

TEST(file_faults, nothing_stays_open_after_many_links) {
  const Folder folder;
  writeFile(folder.at("f"), Bytes(100'000, 5));
  const auto cycle = [&](const Mode& mode) {
    Driver driver(mode.io);
    const Expected<u32> file = openFile(driver.memory, folder.at("f"), {0, true, mode.direct});
    Bytes bytes(100'000);
    CHECK(driver.copy({{file.value, addMemory(driver.memory, bytes), 0, 0, bytes.size()}}).ok());
  };
  for (const Mode& mode : modes())
    cycle(mode);
  const size_t descriptors = entries("/proc/self/fd");
  const size_t threads = entries("/proc/self/task");
  const size_t mappings = readFile("/proc/self/maps").size();
  for (int i = 0; i < 1000; i++)
    cycle(modes()[static_cast<size_t>(i) % modes().size()]);
  CHECK(entries("/proc/self/fd") == descriptors);
  CHECK(entries("/proc/self/task") == threads);
  // Stacks of ended threads and arenas of the allocator may stay, a ring for each cycle not.
  CHECK(readFile("/proc/self/maps").size() < mappings + 20'000);
}

} // namespace mooncake::file::test
