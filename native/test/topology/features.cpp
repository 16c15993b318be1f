#include "topology/features.h"

#include "test/check.h"

#include <dirent.h>
#include <sys/wait.h>

using namespace mooncake;

namespace {

int openFiles() {
  DIR* folder = opendir("/proc/self/fd");
  int count = 0;
  while (readdir(folder) != nullptr)
    count++;
  closedir(folder);
  return count;
}

} // namespace

TEST(features, each_says_what_was_found_or_why_not) {
  const std::vector<Feature> features = probeFeatures();
  CHECK(features.size() == 8);
  for (const Feature& feature : features) {
    CHECK(!feature.name.empty());
    CHECK(!feature.detail.empty());
  }
}

TEST(features, leave_no_file_and_no_child) {
  (void)probeFeatures();
  const int before = openFiles();
  (void)probeFeatures();
  CHECK(openFiles() == before);
  CHECK(waitpid(-1, nullptr, WNOHANG) == -1);
}

TEST(features, a_library_that_is_not_there_is_named) {
  const Feature absent = probeLibrary("libmooncake-absent.so.9");
  CHECK(!absent.usable);
  CHECK(absent.detail.find("libmooncake-absent.so.9") != std::string::npos);
  CHECK(probeLibrary("libc.so.6").usable);
}
