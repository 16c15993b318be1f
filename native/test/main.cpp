#include "test/check.h"

#include <cstring>

int main(int argc, char** argv) {
  using namespace mooncake::test;
  int passed = 0;
  int failed = 0;
  for (const Case& test : cases()) {
    bool wanted = argc == 1;
    for (int i = 1; i < argc; i++) wanted = wanted || std::strstr(test.name.c_str(), argv[i]) != nullptr;
    if (!wanted) continue;
    const int before = failures();
    try {
      test.body();
    } catch (const Abandon&) {
    }
    const bool good = failures() == before;
    good ? passed++ : failed++;
    if (!good) std::fprintf(stderr, "FAIL %s\n", test.name.c_str());
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
