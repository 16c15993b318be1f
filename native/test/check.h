// A test harness of one header: TEST registers a case, CHECK and REQUIRE report file and line, main runs what its
// arguments name (substrings of "group.name") and prints "N passed, N failed" last.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace mooncake::test {

struct Case {
  std::string name;
  std::function<void()> body;
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Registration {
  Registration(const char* group, const char* name, std::function<void()> body) {
    cases().push_back({std::string(group) + "." + name, std::move(body)});
  }
};

/** Thrown by REQUIRE: the rest of the case makes no sense. */
struct Abandon {};

inline void fail(const char* file, int line, const char* what) {
  failures()++;
  std::fprintf(stderr, "  %s:%d: %s\n", file, line, what);
}

/**
 * Whether a test has to be left out because an emulated processor lacks what it is about: the lane `release` says with
 * MOONCAKE_TEST_EMULATED=1 that it runs under one. On a real machine nothing is left out.
 */
inline bool emulatorLacks(const char* name, const char* what) {
  const char* emulated = std::getenv("MOONCAKE_TEST_EMULATED");
  if (!emulated || std::string(emulated) != "1") return false;
  std::fprintf(stderr, "  SKIP %s: emulated processors have no %s\n", name, what);
  return true;
}

}  // namespace mooncake::test

#define TEST(group, name)                                                                                    \
  static void test_##group##_##name();                                                                       \
  static const mooncake::test::Registration registration_##group##_##name(#group, #name,                     \
                                                                          test_##group##_##name);            \
  static void test_##group##_##name()

#define CHECK(condition)                                                                                     \
  do {                                                                                                       \
    if (!(condition)) mooncake::test::fail(__FILE__, __LINE__, "CHECK(" #condition ")");                     \
  } while (false)

#define REQUIRE(condition)                                                                                   \
  do {                                                                                                       \
    if (!(condition)) {                                                                                      \
      mooncake::test::fail(__FILE__, __LINE__, "REQUIRE(" #condition ")");                                   \
      throw mooncake::test::Abandon{};                                                                       \
    }                                                                                                        \
  } while (false)
