#include "checksum/crc64.h"

#include "checksum/forms.h"
#include "checksum/processor.h"

namespace mooncake {
namespace checksum {

const std::vector<Form>& forms() {
  static const std::vector<Form> available = [] {
    std::vector<Form> list;
    const Processor found = detectProcessor();
#if defined(__x86_64__)
    if (found.carryless512) list.push_back(vpclmul512Form);
    if (found.carryless256) list.push_back(vpclmul256Form);
    if (found.carryless) list.push_back(pclmulForm);
#elif defined(__aarch64__)
    if (found.carryless) list.push_back(pmullForm);
#endif
    list.push_back(tableForm);
    return list;
  }();
  return available;
}

const Form& bestForm() {
  static const Form best = forms().front();
  return best;
}

}  // namespace checksum

u64 crc64(const u8* data, u64 length, u64 crc) { return checksum::bestForm().sum(data, length, crc); }

const char* checksumKind() { return checksum::bestForm().name; }

}  // namespace mooncake
