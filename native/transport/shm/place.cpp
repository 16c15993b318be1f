#include "transport/shm/place.h"

#include "transport/shm/channel.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace mooncake::shm {

namespace {

constexpr char PREFIX[] = "shm-";
constexpr char SUFFIX[] = ".sock";
/** Entries looked at in search of stale sockets: the directory is ours, but it may be abused. */
constexpr int MAX_ENTRIES = 4096;

std::string valueOf(const Settings& settings, const char* key) {
  const auto found = settings.find(key);
  return found == settings.end() ? std::string() : found->second;
}

std::string identityOf(const struct stat& status) {
  return std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
}

std::string defaultDirectory(bool anyPeer) {
  // Others cannot pass through the runtime directory of a user.
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  if (!anyPeer && runtime != nullptr && runtime[0] == '/') return std::string(runtime) + "/mooncake-ts";
  return "/tmp/mooncake-ts-" + std::to_string(::geteuid()) + (anyPeer ? "-any" : "");
}

Status prepareDirectory(const std::string& path, bool anyPeer) {
  if (path.empty() || path[0] != '/') return {Code::invalidArgument, "directory \"" + path + "\" is not an absolute path"};
  if (::mkdir(path.c_str(), 0700) == 0) {
    if (anyPeer && ::chmod(path.c_str(), 0711) != 0) return systemError("chmod " + path, errno);
  } else if (errno != EEXIST) {
    return systemError("mkdir " + path, errno);
  }
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return systemError("stat " + path, errno);
  if (!S_ISDIR(status.st_mode)) return {Code::invalidArgument, "directory " + path + " is no directory, or a link to one"};
  if (status.st_uid != ::geteuid()) {
    return {Code::invalidArgument, "directory " + path + " belongs to user " + std::to_string(status.st_uid)};
  }
  if ((status.st_mode & 022) != 0) return {Code::invalidArgument, "directory " + path + " can be written by other users"};
  return {};
}

/** Unlinks sockets of ours that nobody listens on any more. A listener is renamed to its name when it already listens,
    so that a refused connection means that its process is gone. */
void removeStale(const std::string& directory) {
  DIR* const entries = ::opendir(directory.c_str());
  if (entries == nullptr) return;
  int looked = 0;
  while (const dirent* const entry = ::readdir(entries)) {
    if (++looked > MAX_ENTRIES) break;
    const std::string name = entry->d_name;
    if (name.rfind(PREFIX, 0) != 0 || name.size() < sizeof SUFFIX ||
        name.compare(name.size() - (sizeof SUFFIX - 1), std::string::npos, SUFFIX) != 0) {
      continue;
    }
    const std::string path = directory + "/" + name;
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode) || status.st_uid != ::geteuid()) continue;
    if (connectTo(path).status.code == Code::closed) ::unlink(path.c_str());
  }
  ::closedir(entries);
}

}  // namespace

std::string hostIdentity() {
  char text[64] = {};
  if (std::FILE* const file = std::fopen("/proc/sys/kernel/random/boot_id", "re")) {
    const size_t length = std::fread(text, 1, sizeof text - 1, file);
    std::fclose(file);
    std::string id(text, length);
    while (!id.empty() && id.back() == '\n') id.pop_back();
    if (!id.empty()) return id;
  }
  if (::gethostname(text, sizeof text - 1) != 0) return "unknown";
  return std::string("name ") + text;
}

Place& Place::operator=(Place&& other) noexcept {
  if (this == &other) return *this;
  close();
  socket_ = std::move(other.socket_);
  path_ = std::exchange(other.path_, {});
  anyPeer_ = other.anyPeer_;
  announced_ = std::move(other.announced_);
  return *this;
}

void Place::close() {
  if (!path_.empty()) ::unlink(std::exchange(path_, {}).c_str());
  socket_.reset();
}

Expected<Place> Place::listen(const Settings& settings, u64 generation) {
  const std::string peers = valueOf(settings, "peers");
  if (!peers.empty() && peers != "same" && peers != "any") {
    return Status(Code::invalidArgument, "peers \"" + peers + "\" is neither \"same\" nor \"any\"");
  }
  Place place;
  place.anyPeer_ = peers == "any";
  std::string directory = valueOf(settings, "directory");
  if (directory.empty()) directory = defaultDirectory(place.anyPeer_);
  if (Status status = prepareDirectory(directory, place.anyPeer_); !status.ok()) return status;
  removeStale(directory);

  char name[64];
  std::snprintf(name, sizeof name, "%s%d-%016llx%s", PREFIX, static_cast<int>(::getpid()),
                static_cast<unsigned long long>(generation), SUFFIX);
  const std::string path = directory + "/" + name;
  const std::string fresh = directory + "/." + name;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (fresh.size() >= sizeof address.sun_path) {
    return Status(Code::invalidArgument, "directory " + directory + " is too long for a socket's path");
  }
  std::memcpy(address.sun_path, fresh.data(), fresh.size());
  place.socket_ = Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!place.socket_) return systemError("socket", errno);
  ::unlink(fresh.c_str());
  if (::bind(place.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return systemError("bind " + fresh, errno);
  }
  place.path_ = fresh;
  struct stat status{};
  if (::chmod(fresh.c_str(), place.anyPeer_ ? 0666 : 0600) != 0 || ::listen(place.fd(), 128) != 0 ||
      ::rename(fresh.c_str(), path.c_str()) != 0 || ::lstat(path.c_str(), &status) != 0) {
    return systemError("listen " + path, errno);
  }
  place.path_ = path;
  place.announced_ = {{"socket", path}, {"host", hostIdentity()}, {"file", identityOf(status)}};
  return place;
}

Status checkPlace(const Settings& endpoint) {
  const std::string path = valueOf(endpoint, "socket");
  if (path.empty()) return {Code::invalidArgument, "endpoint without \"socket\""};
  const std::string host = valueOf(endpoint, "host");
  if (host != hostIdentity()) return {Code::peer, "the peer is on another host (" + host + ")"};
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return systemError("the peer's socket " + path, errno, Code::peer);
  const std::string file = valueOf(endpoint, "file");
  if (!file.empty() && file != identityOf(status)) {
    return {Code::peer, path + " is another file here: the peer is in another container, or was restarted"};
  }
  return {};
}

}  // namespace mooncake::shm
