// What a stranger sends first, and stock data requests: any bytes give an answer, the same however they arrive, and what is
// accepted survives being written and read again.
#include "transport/tcp/stock.h"

#include <cstdlib>
#include <cstring>

using namespace mooncake;
using namespace mooncake::tcp;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  // Once told, more bytes are not looked at: a connection is told at the first length that tells.
  for (size_t length = 0; length <= size && length <= OPENING_BYTES; length++) {
    const Opening opening = classify(data, length);
    require(length < OPENING_BYTES || opening != Opening::more);
    require(length >= 8 || opening == Opening::more);
  }
  if (size >= STOCK_STATUS_BYTES) {
    StockStatus status;
    if (readStockStatus(data, status)) require(std::memcmp(data + 4, "VTCM", 4) == 0);
  }
  StockRequest request;
  if (size < STOCK_REQUEST_BYTES || !readStockRequest(data, request).ok()) return 0;
  require(request.size > 0 && request.address + request.size >= request.address);
  u8 again[STOCK_REQUEST_BYTES];
  writeStockRequest(again, request);
  require(std::memcmp(again, data, 17) == 0);
  return 0;
}
