// Handshake frames of strangers: what is accepted is a JSON object by its first byte, and is written again as it came.
#include "transport/tcp/bytes.h"
#include "transport/tcp/stock.h"

#include <cstdlib>

using namespace mooncake;
using namespace mooncake::tcp;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  if (size < 8) return 0;
  Handshake handshake;
  if (!readHandshake(data + 8, size - 8, handshake).ok()) return 0;
  require(handshake.json.find_first_not_of(" \t\r\n") == handshake.json.find('{'));
  const std::string frame = handshakeFrame(handshake);
  require(frame.size() == size && get<u64>(reinterpret_cast<const u8*>(frame.data())) == size - 8);
  require(frame.compare(8, std::string::npos, reinterpret_cast<const char*>(data) + 8, size - 8) == 0);
  return 0;
}
