// A segment's entry lives as long as the table or somebody's SegmentRef shares it, and releases the memory when it goes:
// the count of holds is the count of owners. Addresses are found in a list ordered by base, which knows for each place the
// segment that reaches furthest among those before it: where any of them contains a range, that one does.
#include "memory/numa.h"
#include "memory/segment.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

namespace mooncake {

namespace {

struct Entry {
  Segment segment;
  MemoryTable::Released release;
  MemoryTable::Released released;
  std::vector<MemoryTable::Released> hooks;

  ~Entry() {
    for (const auto& hook : hooks) hook();
    if (release) release();
    if (segment.fd >= 0) ::close(segment.fd);
    if (segment.dmabuf >= 0) ::close(segment.dmabuf);
    if (released) released();
  }
};

using EntryPointer = std::shared_ptr<Entry>;

/** Segments by address. */
class AddressIndex {
 public:
  void add(const EntryPointer& entry) {
    const auto at = std::upper_bound(places_.begin(), places_.end(), base(entry),
                                     [](u64 wanted, const Place& place) { return wanted < base(place.entry); });
    const size_t from = static_cast<size_t>(at - places_.begin());
    places_.insert(at, Place{entry, entry.get(), nullptr});
    recount(from);
  }

  void remove(const EntryPointer& entry) {
    auto at = std::lower_bound(places_.begin(), places_.end(), base(entry),
                               [](const Place& place, u64 wanted) { return base(place.entry) < wanted; });
    while (at->entry != entry) ++at;
    const size_t from = static_cast<size_t>(at - places_.begin());
    places_.erase(at);
    recount(from);
  }

  /** Index of the entry that contains the range, or null. `end` does not overflow. */
  Entry* find(u64 start, u64 end, bool forWriting) const {
    const auto after = std::upper_bound(places_.begin(), places_.end(), start,
                                        [](u64 wanted, const Place& place) { return wanted < base(place.entry); });
    if (after == places_.begin()) return nullptr;
    Entry* const furthest = forWriting ? std::prev(after)->writable : std::prev(after)->any;
    return furthest != nullptr && reach(furthest) >= end ? furthest : nullptr;
  }

 private:
  struct Place {
    EntryPointer entry;
    /** The furthest reaching of all entries up to here, and of the writable ones. */
    Entry* any;
    Entry* writable;
  };

  static u64 base(const EntryPointer& entry) { return reinterpret_cast<u64>(entry->segment.base); }
  static u64 reach(const Entry* entry) {
    return entry == nullptr ? 0 : reinterpret_cast<u64>(entry->segment.base) + entry->segment.length;
  }

  void recount(size_t from) {
    for (size_t i = from; i < places_.size(); i++) {
      Place& place = places_[i];
      Entry* const own = place.entry.get();
      Entry* const any = i == 0 ? nullptr : places_[i - 1].any;
      Entry* const writable = i == 0 ? nullptr : places_[i - 1].writable;
      place.any = reach(own) > reach(any) ? own : any;
      place.writable = own->segment.writable && reach(own) > reach(writable) ? own : writable;
    }
  }

  std::vector<Place> places_;
};

}  // namespace

struct MemoryTable::Impl {
  /** Not a shared one: it is held for some instructions, and readers in a row would keep `remove` waiting. */
  mutable std::mutex mutex;
  std::unordered_map<u32, EntryPointer> entries;
  AddressIndex addresses;
  u32 nextId = 1;

  /** Held shared while watchers run. */
  std::shared_mutex watching;
  std::map<u64, Watcher> watchers;
  u64 nextWatcher = 1;
};

MemoryTable::MemoryTable() : impl_(std::make_unique<Impl>()) {}
MemoryTable::~MemoryTable() = default;

Expected<u32> MemoryTable::add(Segment segment, Released release) {
  const u64 base = reinterpret_cast<u64>(segment.base);
  if (segment.length == 0) return Status(Code::invalidArgument, "length is 0: a segment has at least one byte");
  if (base + segment.length < base) {
    return Status(Code::invalidArgument, "length " + std::to_string(segment.length) + " leaves the address space");
  }
  const bool addressed = segment.backing == Backing::foreign || segment.backing == Backing::memfd;
  if (base == 0 && addressed) return Status(Code::invalidArgument, "address is 0");
  if (addressed && segment.numaNode < 0) segment.numaNode = numaNodeOf(segment.base, segment.length);
  const std::lock_guard lock(impl_->mutex);
  if (impl_->nextId == 0) return Status(Code::outOfMemory, "all segment numbers were used");
  segment.id = impl_->nextId++;
  auto entry = std::make_shared<Entry>();
  entry->segment = std::move(segment);
  entry->release = std::move(release);
  const u32 id = entry->segment.id;
  if (base != 0) impl_->addresses.add(entry);
  impl_->entries.emplace(id, std::move(entry));
  return id;
}

SegmentRef MemoryTable::hold(u32 id) {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->entries.find(id);
  if (found == impl_->entries.end()) return {};
  return SegmentRef({found->second, &found->second->segment});
}

SegmentRef MemoryTable::holdAddress(u64 address, u64 length, bool forWriting) {
  if (length == 0 || address + length < address) return {};
  const std::lock_guard lock(impl_->mutex);
  Entry* const entry = impl_->addresses.find(address, address + length, forWriting);
  if (entry == nullptr) return {};
  return SegmentRef({impl_->entries.at(entry->segment.id), &entry->segment});
}

Status MemoryTable::remove(u32 id, Released released) {
  EntryPointer entry;
  {
    const std::lock_guard lock(impl_->mutex);
    const auto found = impl_->entries.find(id);
    if (found == impl_->entries.end()) {
      return {Code::segment, "segment " + std::to_string(id) + " is not registered"};
    }
    entry = std::move(found->second);
    impl_->entries.erase(found);
    if (entry->segment.base != nullptr) impl_->addresses.remove(entry);
    // Nobody else looks at it before the last owner lets go, and this one has not.
    entry->released = std::move(released);
  }
  const std::shared_lock lock(impl_->watching);
  for (const auto& [number, watcher] : impl_->watchers) watcher(entry->segment);
  return {};
}

bool MemoryTable::atRelease(u32 id, Released hook) {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->entries.find(id);
  if (found == impl_->entries.end()) return false;
  found->second->hooks.push_back(std::move(hook));
  return true;
}

u64 MemoryTable::watch(Watcher watcher) {
  const std::unique_lock lock(impl_->watching);
  impl_->watchers.emplace(impl_->nextWatcher, std::move(watcher));
  return impl_->nextWatcher++;
}

void MemoryTable::unwatch(u64 watcher) {
  const std::unique_lock lock(impl_->watching);
  impl_->watchers.erase(watcher);
}

std::vector<Segment> MemoryTable::list() const {
  std::vector<Segment> all;
  {
    const std::lock_guard lock(impl_->mutex);
    all.reserve(impl_->entries.size());
    for (const auto& [id, entry] : impl_->entries) all.push_back(entry->segment);
  }
  std::sort(all.begin(), all.end(), [](const Segment& a, const Segment& b) { return a.id < b.id; });
  return all;
}

}  // namespace mooncake
