// Results of native calls. Codes cross to TypeScript as numbers (src/native/codes.ts has the same list in the same order)
// and become MooncakeErrors there.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace mooncake {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

enum class Code : u8 {
  ok,
  invalidArgument,
  segment,       // not registered, being taken away, or a range that leaves it
  peer,          // refused, died, or went silent
  timeout,
  aborted,
  closed,
  corrupt,       // a checksum differs
  protocol,      // bytes that no peer of ours sends
  queueFull,
  notSupported,
  outOfMemory,
  system,        // a system call failed
};

struct [[nodiscard]] Status {
  Code code = Code::ok;
  /** What was wrong with which value, for people. */
  std::string detail;

  Status() = default;
  Status(Code c, std::string what) : code(c), detail(std::move(what)) {}

  bool ok() const { return code == Code::ok; }
};

/** `call`: errno as text, "connect 127.0.0.1:1: Connection refused". */
Status systemError(const std::string& what, int error, Code code = Code::system);

template <class T>
struct [[nodiscard]] Expected {
  Status status;
  T value{};

  Expected(T v) : value(std::move(v)) {}
  Expected(Status s) : status(std::move(s)) {}

  bool ok() const { return status.ok(); }
};

}  // namespace mooncake
