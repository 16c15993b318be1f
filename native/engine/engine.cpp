#include "engine/engine.h"

#include "engine/dispatcher.h"
#include "engine/keeper.h"
#include "engine/statistics.h"
#include "memory/file.h"
#include "transport/copy_pool.h"

#include <sys/random.h>

#include <random>
#include <shared_mutex>

namespace mooncake {

namespace {

/** Whoever polls on the only processor keeps the one from it whom it waits for. */
std::chrono::microseconds spinTime(u32 wanted) {
  return std::chrono::microseconds(std::thread::hardware_concurrency() > 1 ? wanted : 0);
}

u32 defaultCopyThreads() { return std::clamp(std::thread::hardware_concurrency(), 1U, 4U); }

const Status CLOSED(Code::closed, "the engine is closed");

/** Never 0: that is the generation of peers who have none. */
u64 randomGeneration() {
  u64 value = 0;
  while (value == 0) {
    if (getrandom(&value, sizeof value, 0) != sizeof value) value = std::random_device{}();
  }
  return value;
}

}  // namespace

using DispatcherPointer = std::shared_ptr<Dispatcher>;

struct Engine::Impl {
  explicit Impl(EngineOptions given)
      : options(std::move(given)),
        gpus(options.cudaDriver),
        copies(options.copyThreads > 0 ? options.copyThreads : defaultCopyThreads(), spinTime(options.spinUs)),
        generation(randomGeneration()),
        context{memory, copies, generation, [this] { keeper.now(); },
                [this](u8 type, std::string json, std::function<void(std::string)> reply) {
                  handshake(type, std::move(json), std::move(reply));
                },
                spinTime(options.spinUs),
                [this](const std::string& peer, Settings request, std::function<void(Expected<Settings>)> answer) {
                  shake(peer, std::move(request), std::move(answer));
                },
                options.verbs, &gpus, options.gpuShare},
        keeper([this](Clock::time_point now) { return visit(now); }) {}

  void makeTransports();
  void openSelf();
  Transport* transport(const std::string& name) const;
  Expected<const cuda::Gpu*> gpu(const std::string& name);
  template <class Visit>
  auto onDevice(u32 segment, Visit&& visit);
  std::vector<Rail> openLinks(const PeerEndpoint& endpoint, Dispatcher& peer, Status& status);
  DispatcherPointer makeDispatcher(std::string name, u64 peerGeneration);
  DispatcherPointer dispatcher(u32 peer) const;
  std::vector<DispatcherPointer> dispatchers() const;
  Clock::time_point visit(Clock::time_point now);
  void handshake(u8 type, std::string json, std::function<void(std::string)> reply);
  void shake(const std::string& peer, Settings request, std::function<void(Expected<Settings>)> answer);
  const std::vector<std::pair<std::string, Probe>>& probes();

  const EngineOptions options;
  // Before the memory: segments of theirs give it back when they go.
  cuda::Gpus gpus;
  cuda::Events events;
  MemoryTable memory;
  CopyPool copies;
  const u64 generation;
  TransportContext context;
  std::vector<std::unique_ptr<Transport>> transports;

  /** Links go before the transports that they live on: held by `close`, and shared by whoever opens or closes a link. */
  std::shared_mutex closing;
  bool closed = false;

  /** Guards what follows. */
  mutable std::mutex mutex;
  std::map<u32, DispatcherPointer> peers;
  u32 nextPeer = 0;
  std::function<void(u8 type, std::string json, std::function<void(std::string)> reply)> onHandshake;
  std::function<void(const std::string& peer, Settings request, std::function<void(Expected<Settings>)> answer)> onShake;

  const std::shared_ptr<cuda::Imports> imports = std::make_shared<cuda::Imports>();

  std::mutex probing;
  std::vector<std::pair<std::string, Probe>> probed;

  std::atomic<u32> nextLink{0};
  std::atomic<u64> nextBatch{1};
  std::atomic<u64> active{0};
  std::atomic<u64> completed{0};
  std::atomic<u64> failed{0};

  Keeper keeper;
};

void Engine::Impl::makeTransports() {
  const auto& wanted = options.transports;
  for (const auto& [name, make] : mooncake::transports()) {
    const bool always = std::string(name) == "local";
    if (always || wanted.empty() || std::find(wanted.begin(), wanted.end(), name) != wanted.end()) {
      transports.push_back(make(context));
    }
  }
}

Transport* Engine::Impl::transport(const std::string& name) const {
  for (const auto& candidate : transports) {
    if (name == candidate->name()) return candidate.get();
  }
  return nullptr;
}

DispatcherPointer Engine::Impl::makeDispatcher(std::string name, u64 peerGeneration) {
  const auto over = [this](bool ok) {
    (ok ? completed : failed).fetch_add(1, std::memory_order_relaxed);
    active.fetch_sub(1, std::memory_order_relaxed);
  };
  return std::make_shared<Dispatcher>(std::move(name), peerGeneration, over, [this](Clock::time_point when) { keeper.by(when); });
}

std::vector<Rail> Engine::Impl::openLinks(const PeerEndpoint& endpoint, Dispatcher& peer, Status& status) {
  std::vector<Rail> rails;
  Transport* const found = transport(endpoint.transport);
  if (found == nullptr) {
    status = {Code::notSupported, "transport " + endpoint.transport + " is not in use here"};
    return rails;
  }
  auto links = found->open(endpoint.settings, peer.peer(), peer);
  if (!links.ok()) status = std::move(links.status);
  for (auto& link : links.value) {
    link->number = nextLink++;
    link->stats.bandwidth = link->capabilities().bandwidth;
    rails.emplace_back(endpoint.transport, std::move(link));
  }
  return rails;
}

void Engine::Impl::shake(const std::string& peer, Settings request, std::function<void(Expected<Settings>)> answer) {
  decltype(onShake) carrier;
  {
    const std::lock_guard lock(mutex);
    carrier = onShake;
  }
  if (!carrier) return answer(Status(Code::notSupported, "nobody carries handshakes to " + peer));
  carrier(peer, std::move(request), std::move(answer));
}

/** Peer 0: copies, and files and GPUs where there is a transport for them. */
void Engine::Impl::openSelf() {
  const DispatcherPointer self = makeDispatcher("self", generation);
  std::vector<Rail> rails;
  for (const char* name : {"local", "file", "cuda"}) {
    Status status;
    for (Rail& rail : openLinks({name, {}}, *self, status)) rails.push_back(std::move(rail));
  }
  self->use(std::move(rails));
  peers.emplace(nextPeer++, self);
}

DispatcherPointer Engine::Impl::dispatcher(u32 peer) const {
  const std::lock_guard lock(mutex);
  const auto found = peers.find(peer);
  return found == peers.end() ? nullptr : found->second;
}

std::vector<DispatcherPointer> Engine::Impl::dispatchers() const {
  const std::lock_guard lock(mutex);
  std::vector<DispatcherPointer> all;
  all.reserve(peers.size());
  for (const auto& [number, peer] : peers) all.push_back(peer);
  return all;
}

Clock::time_point Engine::Impl::visit(Clock::time_point now) {
  Clock::time_point next = Clock::time_point::max();
  for (const DispatcherPointer& peer : dispatchers()) {
    peer->lookAtAll();
    next = std::min(next, peer->expire(now));
  }
  return next;
}

void Engine::Impl::handshake(u8 type, std::string json, std::function<void(std::string)> reply) {
  std::function<void(u8, std::string, std::function<void(std::string)>)> handler;
  {
    const std::lock_guard lock(mutex);
    handler = onHandshake;
  }
  if (handler) return handler(type, std::move(json), std::move(reply));
  reply("");
}

const std::vector<std::pair<std::string, Probe>>& Engine::Impl::probes() {
  const std::lock_guard lock(probing);
  if (probed.empty()) {
    for (const auto& transport : transports) probed.emplace_back(transport->name(), transport->probe());
  }
  return probed;
}

Engine::Engine(EngineOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {
  impl_->makeTransports();
  impl_->openSelf();
}

Engine::~Engine() { close(); }

u64 Engine::generation() const { return impl_->generation; }
MemoryTable& Engine::memory() { return impl_->memory; }

Expected<Allocation> Engine::allocate(u64 length, const AllocateOptions& options) {
  return mooncake::allocate(impl_->memory, length, options);
}

Expected<u32> Engine::openFile(const std::string& path, u64 length, bool writable) {
  const std::shared_lock open(impl_->closing, std::try_to_lock);
  if (!open || impl_->closed) return CLOSED;
  return mooncake::openFile(impl_->memory, path, {length, writable, true});
}

Expected<const cuda::Gpu*> Engine::Impl::gpu(const std::string& name) {
  if (transport("cuda") == nullptr) return Status(Code::notSupported, "transport cuda is not in use here");
  return gpus.open(name);
}

Expected<u32> Engine::allocateDevice(const std::string& gpu, u64 length) {
  const Expected<const cuda::Gpu*> found = impl_->gpu(gpu);
  if (!found.ok()) return found.status;
  return cuda::allocateDevice(impl_->memory, *found.value, length);
}

Expected<u32> Engine::registerDevice(const std::string& gpu, u64 address, u64 length) {
  const Expected<const cuda::Gpu*> found = impl_->gpu(gpu);
  if (!found.ok()) return found.status;
  return cuda::registerDevice(impl_->memory, *found.value, address, length);
}

Expected<u32> Engine::importDevice(const std::string& gpu, const cuda::IpcHandle& handle, u64 offset, u64 length) {
  const Expected<const cuda::Gpu*> found = impl_->gpu(gpu);
  if (!found.ok()) return found.status;
  return cuda::importDevice(impl_->memory, impl_->imports, *found.value, handle, offset, length);
}

/** What `visit` makes of a GPU's segment and the GPU. */
template <class Visit>
auto Engine::Impl::onDevice(u32 segment, Visit&& visit) {
  using Result = decltype(visit(std::declval<const cuda::Gpu&>(), std::declval<const Segment&>()));
  const SegmentRef held = memory.hold(segment);
  if (!held || held->backing != Backing::device) {
    return Result(Status(Code::segment, "segment " + std::to_string(segment) + " is not registered, or not a GPU's"));
  }
  const Expected<const cuda::Gpu*> found = gpu("cuda:" + std::to_string(held->device));
  return found.ok() ? visit(*found.value, *held) : Result(found.status);
}

Expected<cuda::Exported> Engine::exportDevice(u32 segment) { return impl_->onDevice(segment, cuda::exportDevice); }
Expected<cuda::ExportedFd> Engine::exportAllocation(u32 segment) { return impl_->onDevice(segment, cuda::exportAllocation); }
Expected<cuda::ExportedFd> Engine::exportDmabuf(u32 segment) { return impl_->onDevice(segment, cuda::exportDmabuf); }

Expected<u32> Engine::allocateVirtual(const std::string& gpu, u64 length) {
  const Expected<const cuda::Gpu*> found = impl_->gpu(gpu);
  if (!found.ok()) return found.status;
  return cuda::allocateVirtual(impl_->memory, *found.value, length);
}

Expected<u32> Engine::mapDevice(const std::string& gpu, const std::vector<cuda::Shared>& shared, u64 offset, u64 length) {
  const Expected<const cuda::Gpu*> found = impl_->gpu(gpu);
  if (!found.ok()) return found.status;
  return cuda::mapDevice(impl_->memory, *found.value, shared, offset, length);
}

Expected<u32> Engine::createEvent(const std::string& gpu) {
  const Expected<const cuda::Gpu*> found = impl_->gpu(gpu);
  if (!found.ok()) return found.status;
  return impl_->events.create(*found.value);
}

Expected<u32> Engine::openEvent(const std::string& gpu, const cuda::IpcEventHandle& handle) {
  const Expected<const cuda::Gpu*> found = impl_->gpu(gpu);
  if (!found.ok()) return found.status;
  return impl_->events.open(*found.value, handle);
}

Expected<cuda::IpcEventHandle> Engine::exportEvent(u32 event) { return impl_->events.exportEvent(event); }
Status Engine::closeEvent(u32 event) { return impl_->events.close(event); }

Expected<Settings> Engine::listen(const std::string& transport, const Settings& settings) {
  const std::shared_lock open(impl_->closing, std::try_to_lock);
  if (!open || impl_->closed) return CLOSED;
  Transport* const found = impl_->transport(transport);
  if (found == nullptr) return Status(Code::notSupported, "transport " + transport + " is not in use here");
  return found->listen(settings);
}

void Engine::onHandshake(std::function<void(u8 type, std::string json, std::function<void(std::string)> reply)> handler) {
  const std::lock_guard lock(impl_->mutex);
  impl_->onHandshake = std::move(handler);
}

Expected<std::vector<SegmentKey>> Engine::expose(const std::string& transport, u32 segment) {
  const std::shared_lock open(impl_->closing, std::try_to_lock);
  if (!open || impl_->closed) return CLOSED;
  Transport* const found = impl_->transport(transport);
  if (found == nullptr) return Status(Code::notSupported, "transport " + transport + " is not in use here");
  return found->expose(segment);
}

Settings Engine::accept(const std::string& transport, const Settings& request) {
  const std::shared_lock open(impl_->closing, std::try_to_lock);
  Transport* const found = !open || impl_->closed ? nullptr : impl_->transport(transport);
  if (found == nullptr) return {{"reply_msg", "this engine has no " + transport + " connections"}};
  return found->accept(request);
}

void Engine::onShake(
    std::function<void(const std::string& peer, Settings request, std::function<void(Expected<Settings>)> answer)> carrier) {
  const std::lock_guard lock(impl_->mutex);
  impl_->onShake = std::move(carrier);
}

Expected<u32> Engine::openPeer(const std::string& name, u64 generation, const std::vector<PeerEndpoint>& endpoints) {
  // Not waited for: whoever closes may wait for this thread.
  const std::shared_lock open(impl_->closing, std::try_to_lock);
  if (!open || impl_->closed) return CLOSED;
  const DispatcherPointer peer = impl_->makeDispatcher(name, generation);
  std::vector<Rail> rails;
  Status last(Code::invalidArgument, "peer " + name + " has no endpoints");
  for (const PeerEndpoint& endpoint : endpoints) {
    for (Rail& rail : impl_->openLinks(endpoint, *peer, last)) rails.push_back(std::move(rail));
  }
  if (rails.empty()) return last;
  peer->use(std::move(rails));
  const std::lock_guard lock(impl_->mutex);
  const u32 number = impl_->nextPeer++;
  impl_->peers.emplace(number, peer);
  return number;
}

void Engine::setSegments(u32 peer, const std::vector<RemoteSegment>& segments) {
  if (const DispatcherPointer found = impl_->dispatcher(peer)) found->peer().setSegments(segments);
}

void Engine::closePeer(u32 peer) {
  const std::shared_lock open(impl_->closing);
  DispatcherPointer found;
  {
    const std::lock_guard lock(impl_->mutex);
    const auto at = impl_->peers.find(peer);
    if (peer == 0 || at == impl_->peers.end()) return;
    found = std::move(at->second);
    impl_->peers.erase(at);
  }
  found->close({Code::closed, "peer " + found->peer().name() + " was closed"});
}

Expected<u64> Engine::submit(BatchSpec spec, BatchDone done) {
  if ((spec.op == Op::copy) != (spec.peer == 0)) {
    return Status(Code::invalidArgument, "peer " + std::to_string(spec.peer) + ": copies have peer 0, others do not");
  }
  if (spec.records.empty()) return Status(Code::invalidArgument, "the batch has no records");
  if (spec.records.size() > UINT32_MAX) return Status(Code::invalidArgument, "the batch has 2^32 records or more");
  const DispatcherPointer peer = impl_->dispatcher(spec.peer);
  if (!peer) return Status(Code::closed, "peer " + std::to_string(spec.peer) + " is not open");
  if (impl_->active.fetch_add(1, std::memory_order_relaxed) >= impl_->options.maxBatches) {
    impl_->active.fetch_sub(1, std::memory_order_relaxed);
    return Status(Code::queueFull, std::to_string(impl_->options.maxBatches) + " batches are under way");
  }
  const u64 number = impl_->nextBatch.fetch_add(1, std::memory_order_relaxed);
  const Clock::time_point deadline = spec.deadline;
  auto job = std::make_unique<Job>(number, spec.op, spec.verify, deadline, std::move(spec.records));
  std::shared_ptr<cuda::Order> order;
  if (!spec.waits.empty() || !spec.signals.empty()) {
    Expected<std::shared_ptr<cuda::Order>> made = impl_->events.order(spec.waits, spec.signals);
    if (!made.ok()) {
      impl_->active.fetch_sub(1, std::memory_order_relaxed);
      return made.status;
    }
    order = std::move(made.value);
  }
  job->set(spec.repeat, order);
  job->done = std::move(done);
  job->started = Clock::now();
  job->due = deadline;
  Status status = job->prepare(impl_->memory, spec.op == Op::copy ? nullptr : &peer->peer(), peer->limits());
  if (order) order->left = static_cast<u32>(job->slices().size());
  if (status.ok()) status = peer->start(std::move(job));
  if (!status.ok()) {
    impl_->active.fetch_sub(1, std::memory_order_relaxed);
    return status;
  }
  impl_->keeper.by(deadline);
  return number;
}

void Engine::cancel(u64 batch) {
  for (const DispatcherPointer& peer : impl_->dispatchers()) {
    if (peer->cancel(batch, {Code::aborted, "the batch was cancelled"})) return;
  }
}

std::string Engine::statistics() const {
  StatisticsInput input;
  input.peers = impl_->dispatchers();
  input.probes = &impl_->probes();
  input.active = impl_->active;
  input.completed = impl_->completed;
  input.failed = impl_->failed;
  input.segments = impl_->memory.list();
  return statisticsJson(input);
}

std::vector<std::pair<std::string, Probe>> Engine::probe() { return impl_->probes(); }

void Engine::close() {
  const std::unique_lock alone(impl_->closing);
  if (impl_->closed) return;
  impl_->closed = true;
  std::map<u32, DispatcherPointer> peers;
  {
    const std::lock_guard lock(impl_->mutex);
    peers.swap(impl_->peers);
  }
  for (const auto& [number, peer] : peers) peer->close({Code::closed, "the engine was closed"});
  for (const auto& transport : impl_->transports) transport->close();
  impl_->keeper.close();
  impl_->copies.close();
}

}  // namespace mooncake
