// Little-endian numbers in bytes of any alignment.
#pragma once

#include "engine/status.h"

#include <bit>
#include <cstring>

namespace mooncake::tcp {

static_assert(std::endian::native == std::endian::little);

template <class T>
void put(u8* out, T value) {
  std::memcpy(out, &value, sizeof value);
}

template <class T>
T get(const u8* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

}  // namespace mooncake::tcp
