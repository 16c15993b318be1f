// What can be opened as a segment, and what is refused with which words.
#include "test/check.h"
#include "test/file/fixture.h"

#include <algorithm>
#include <sys/stat.h>

namespace mooncake::file::test {

namespace {

bool names(const Status& status, const std::string& what) {
  return status.detail.find(what) != std::string::npos;
}

} // namespace

TEST(file_open, has_the_files_length_unless_another_is_given) {
  const Folder folder;
  MemoryTable memory;
  writeFile(folder.at("f"), Bytes(10'000, 1));
  const auto length = [&](u64 wanted) {
    const Expected<u32> id = openFile(memory, folder.at("f"), {wanted, true, true});
    return id.ok() ? memory.hold(id.value)->length : 0;
  };
  CHECK(length(0) == 10'000);
  CHECK(length(4000) == 4000);
  CHECK(std::filesystem::file_size(folder.at("f")) == 10'000);
  CHECK(length(20'000) == 20'000);
  CHECK(std::filesystem::file_size(folder.at("f")) == 20'000);
  CHECK(readFile(folder.at("f"))[9'999] == 1);
}

TEST(file_open, makes_a_file_for_its_owner_alone_with_its_blocks_allocated) {
  const Folder folder;
  MemoryTable memory;
  CHECK(openFile(memory, folder.at("new"), {1 << 20, true, true}).ok());
  struct stat made {};
  REQUIRE(stat(folder.at("new").c_str(), &made) == 0);
  CHECK((made.st_mode & 0777) == 0600);
  CHECK(made.st_size == 1 << 20);
  CHECK(static_cast<u64>(made.st_blocks) * 512 >= 1 << 20);
}

TEST(file_open, refuses_what_has_no_bytes_and_names_it) {
  const Folder folder;
  MemoryTable memory;
  writeFile(folder.at("empty"), {});
  writeFile(folder.at("short"), Bytes(10));
  REQUIRE(mkfifo(folder.at("pipe").c_str(), 0600) == 0);
  const auto refused = [&](const std::string& path, const FileOptions& options, Code code) {
    const Status status = openFile(memory, path, options).status;
    CHECK(status.code == code);
    CHECK(path.empty() || names(status, path));
  };
  refused(folder.at("missing"), {0, false, true}, Code::system);
  refused(folder.at("missing"), {0, true, true}, Code::system);
  refused(folder.at("missing/f"), {10, true, true}, Code::system);
  refused(folder.at("empty"), {0, true, true}, Code::invalidArgument);
  refused(folder.at("short"), {11, false, true}, Code::invalidArgument);
  refused(folder.at("pipe"), {10, false, true}, Code::invalidArgument);
  refused(folder.at(""), {10, false, true}, Code::invalidArgument);
  refused("/dev/zero", {10, true, true}, Code::invalidArgument);
  refused("", {10, true, true}, Code::invalidArgument);
  refused(folder.at("short"), {~u64{0}, true, true}, Code::invalidArgument);
  CHECK(memory.list().empty());
  CHECK(!std::filesystem::exists(folder.at("missing")));
}

TEST(file_open, opens_and_closes_its_descriptors) {
  const Folder folder;
  writeFile(folder.at("f"), Bytes(10'000, 1));
  const auto open = [] {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  const auto before = open();
  for (int i = 0; i < 1000; i++) {
    MemoryTable memory;
    const Expected<u32> id = openFile(memory, folder.at("f"), {0, true, true});
    REQUIRE(id.ok());
    CHECK(open() > before);
    CHECK(memory.remove(id.value, {}).ok());
    CHECK(open() == before);
  }
}

} // namespace mooncake::file::test
