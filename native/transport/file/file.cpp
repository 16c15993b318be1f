#include "transport/file/file.h"

#include "transport/file/link.h"
#include "transport/file/ring.h"

#include <cstdio>
#include <cstdlib>

namespace mooncake {

namespace {

class FileTransport final : public Transport {
public:
  const char* name() const override { return "file"; }

  Probe probe() override {
    const Expected<std::unique_ptr<file::uring::Ring>> ring = file::uring::Ring::open(1);
    if (!ring.ok()) return {true, "threads, since " + ring.status.detail};
    char text[32];
    std::snprintf(text, sizeof text, "io_uring 0x%x", ring.value->features());
    return {true, text};
  }

  Expected<Settings> listen(const Settings&) override {
    return Status(Code::notSupported, "the file transport serves no peers");
  }

  Expected<std::vector<std::unique_ptr<Link>>> open(const Settings& endpoint, Peer&,
                                                    LinkEvents& events) override {
    const auto setting = endpoint.find("io");
    const char* const variable = std::getenv("MOONCAKE_FILE_IO");
    const std::string io = setting != endpoint.end() ? setting->second : variable ? variable : "";
    file::Io chosen = file::Io::any;
    if (io == "uring") {
      chosen = file::Io::uring;
    } else if (io == "threads") {
      chosen = file::Io::threads;
    } else if (!io.empty()) {
      return Status(Code::invalidArgument, "io must be uring or threads, got " + io);
    }
    std::vector<std::unique_ptr<Link>> links;
    links.push_back(std::make_unique<file::FileLink>(chosen, events));
    return links;
  }

  void close() override {}
};

} // namespace

std::unique_ptr<Transport> makeFileTransport(TransportContext&) { return std::make_unique<FileTransport>(); }

} // namespace mooncake
