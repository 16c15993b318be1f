#include "engine/status.h"

#include <system_error>

namespace mooncake {

Status systemError(const std::string& what, int error, Code code) {
  return {code, what + ": " + std::generic_category().message(error)};
}

}  // namespace mooncake
