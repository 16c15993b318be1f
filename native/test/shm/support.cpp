#include "test/shm/support.h"

#include "checksum/crc64.h"
#include "memory/process.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

namespace mooncake::shmtest {

namespace {

bool readLine(int fd, std::string& buffer, std::string& line) {
  for (;;) {
    if (const size_t end = buffer.find('\n'); end != std::string::npos) {
      line = buffer.substr(0, end);
      buffer.erase(0, end + 1);
      return true;
    }
    char piece[512];
    const ssize_t count = ::read(fd, piece, sizeof piece);
    if (count <= 0) return false;
    buffer.append(piece, static_cast<size_t>(count));
  }
}

/** Orders what this thread did before what the engine's threads do with memory, and the other way round: the pipes and
    sockets that really do so run through the other process, where ThreadSanitizer does not see them. */
void synchronize(Engine& engine) {
  u8 byte = 0;
  Segment segment;
  segment.base = &byte;
  segment.length = 1;
  const u32 id = engine.memory().add(std::move(segment), {}).value;
  static_cast<void>(engine.memory().remove(id, {}));
}

bool writeLine(int fd, std::string line) {
  line += '\n';
  return ::write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size());
}

size_t entriesOf(const char* path) {
  size_t count = 0;
  DIR* const entries = ::opendir(path);
  while (const dirent* const entry = ::readdir(entries)) count += entry->d_name[0] != '.' ? 1 : 0;
  ::closedir(entries);
  return count;
}

}  // namespace

Folder::Folder() {
  char name[] = "/tmp/mooncake-test-XXXXXX";
  path = ::mkdtemp(name);
}

Folder::~Folder() {
  if (DIR* const entries = ::opendir(path.c_str())) {
    while (const dirent* const entry = ::readdir(entries)) ::unlink((path + "/" + entry->d_name).c_str());
    ::closedir(entries);
  }
  ::rmdir(path.c_str());
}

void fill(u8* data, u64 length, u64 seed) {
  u64 state = seed * 0x9e3779b97f4a7c15 + 1;
  for (u64 i = 0; i < length; i++) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    data[i] = static_cast<u8>(state >> 32);
  }
}

u64 sumOf(u64 length, u64 seed) {
  std::vector<u8> bytes(length);
  fill(bytes.data(), length, seed);
  return crc64(bytes.data(), length, 0);
}

OwnerProcess::OwnerProcess(Options options) {
  int down[2];
  int up[2];
  if (::pipe(down) != 0 || ::pipe(up) != 0) return;
  std::fflush(nullptr);
  pid = ::fork();
  if (pid == 0) {
    ::close(down[1]);
    ::close(up[0]);
    serve(options, down[0], up[1]);
  }
  ::close(down[0]);
  ::close(up[1]);
  out_ = down[1];
  in_ = up[0];
  std::string line;
  if (!readLine(in_, buffer_, line)) return;
  std::istringstream words(line);
  words >> generation >> shared.id >> readOnly.id >> foreign.id;
  shared.length = readOnly.length = foreign.length = options.length;
  endpoint.transport = "shm";
  std::string key;
  std::string value;
  while (words >> key >> value) endpoint.settings[key] = value;
  ready = true;
}

OwnerProcess::~OwnerProcess() {
  if (pid > 0) {
    ::kill(pid, SIGKILL);
    join();
  }
  if (in_ >= 0) ::close(in_);
  if (out_ >= 0) ::close(out_);
}

void OwnerProcess::kill(int signal) {
  ::kill(pid, signal);
  if (signal == SIGSTOP) ::waitpid(pid, nullptr, WUNTRACED);
}

void OwnerProcess::join() {
  if (pid > 0) ::waitpid(pid, nullptr, 0);
  pid = -1;
}

std::string OwnerProcess::ask(const std::string& command) {
  std::string line;
  if (!writeLine(out_, command) || !readLine(in_, buffer_, line)) return "gone";
  return line;
}

void OwnerProcess::serve(const Options& options, int in, int out) {
  if (options.prepare) options.prepare();
  {
    Engine engine({2, 64, {"shm"}});
    Expected<Settings> listening = engine.listen("shm", options.listen);
    if (!listening.ok()) {
      std::fprintf(stderr, "  owner: %s\n", listening.status.detail.c_str());
      std::_Exit(1);
    }
    std::map<u32, u8*> bases;
    AllocateOptions allocate;
    allocate.hugePages = false;
    std::vector<Allocation> allocations;
    for (const bool writable : {true, false}) {
      allocate.writable = writable;
      Expected<Allocation> made = engine.allocate(options.length, allocate);
      bases[made.value.id] = made.value.mapping->base();
      allocations.push_back(std::move(made.value));
    }
    u32 sharedId = allocations[0].id;
    if (options.processMemory) {
      allocate.writable = true;
      Expected<Allocation> made = mooncake::allocate(processMemory(), options.length, allocate);
      Segment lent;
      lent.base = made.value.mapping->base();
      lent.length = options.length;
      static_cast<void>(shareProcessMemory(lent));
      sharedId = engine.memory().add(lent, {}).value;
      bases[sharedId] = lent.base;
      allocations.push_back(std::move(made.value));
    }
    std::vector<u8> foreign(options.length);
    Segment segment;
    segment.base = foreign.data();
    segment.length = foreign.size();
    const u32 foreignId = engine.memory().add(std::move(segment), {}).value;
    bases[foreignId] = foreign.data();
    for (const auto& [id, base] : bases) fill(base, options.length, id);
    std::ostringstream announced;
    announced << engine.generation() << ' ' << sharedId << ' ' << allocations[1].id << ' ' << foreignId;
    for (const auto& [key, value] : listening.value) announced << ' ' << key << ' ' << value;
    synchronize(engine);
    writeLine(out, announced.str());

    std::map<u32, std::shared_future<void>> removed;
    std::string buffer;
    std::string line;
    while (readLine(in, buffer, line)) {
      std::istringstream words(line);
      std::string command;
      u32 id = 0;
      u64 seed = 0;
      words >> command >> id >> seed;
      if (command == "exit") break;
      std::string answer = "ok";
      synchronize(engine);
      if (command == "sum") answer = std::to_string(crc64(bases[id], options.length, 0));
      if (command == "peek") answer = std::to_string(bases[id][0]);
      if (command == "fill") fill(bases[id], options.length, seed);
      if (command == "remove") {
        const auto promise = std::make_shared<std::promise<void>>();
        removed[id] = promise->get_future().share();
        static_cast<void>(engine.memory().remove(id, [promise] { promise->set_value(); }));
      }
      if (command == "removed") {
        const auto state = removed[id].wait_for(std::chrono::milliseconds(seed));
        answer = state == std::future_status::ready ? "yes" : "no";
      }
      synchronize(engine);
      writeLine(out, answer);
    }
    engine.close();
  }
  // Not exit(): the parent's buffers and handlers are not this process's.
  std::_Exit(0);
}

Grantee::Grantee(const OwnerProcess& owner, Settings extra, u64 length) : engine({2, 64, {"shm"}}), data(length) {
  Segment segment;
  segment.base = data.data();
  segment.length = data.size();
  id = engine.memory().add(std::move(segment), {}).value;
  PeerEndpoint endpoint = owner.endpoint;
  for (const auto& [key, value] : extra) endpoint.settings[key] = value;
  peer = engine.openPeer("owner", owner.generation, {endpoint}).value;
  std::vector<RemoteSegment> segments;
  for (const Announced& announced : {owner.shared, owner.readOnly, owner.foreign}) {
    segments.push_back({announced.id, 0, announced.length});
  }
  engine.setSegments(peer, segments);
}

std::vector<Record> Grantee::records(Op op, const Announced& remote, u64 block, u64 length) const {
  std::vector<Record> all;
  if (length == 0) length = std::min<u64>(remote.length, data.size());
  for (u64 at = 0; at < length; at += block) {
    const u64 size = std::min(block, length - at);
    if (op == Op::write) all.push_back({id, remote.id, at, at, size});
    if (op == Op::read) all.push_back({remote.id, id, at, at, size});
  }
  return all;
}

std::future<BatchResult> Grantee::start(Op op, std::vector<Record> records, bool verify, int milliseconds) {
  auto promise = std::make_shared<std::promise<BatchResult>>();
  auto future = promise->get_future();
  BatchSpec spec;
  spec.op = op;
  spec.peer = peer;
  spec.records = std::move(records);
  spec.deadline = Clock::now() + std::chrono::milliseconds(milliseconds);
  spec.verify = verify;
  auto submitted = engine.submit(std::move(spec), [promise](u64, BatchResult result) { promise->set_value(std::move(result)); });
  batch = submitted.value;
  if (!submitted.ok()) promise->set_value({std::move(submitted.status)});
  return future;
}

size_t openDescriptors() { return entriesOf("/proc/self/fd"); }
size_t threads() { return entriesOf("/proc/self/task"); }

size_t memfdMappings() {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  size_t count = 0;
  while (std::getline(maps, line)) count += line.find("memfd:") != std::string::npos ? 1 : 0;
  return count;
}

}  // namespace mooncake::shmtest
