// Packets of the shared-memory socket: whatever decodes must encode to the same bytes.
#include "transport/shm/messages.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mooncake::shm::Message message;
  if (!mooncake::shm::decode(data, size, message).ok()) return 0;
  const auto packet = mooncake::shm::encode(message);
  if (packet.size() != size || std::memcmp(packet.data(), data, size) != 0) std::abort();
  return 0;
}
