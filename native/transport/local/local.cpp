#include "transport/local/local.h"

#include "transport/copy_pool.h"
#include "transport/verified_copy.h"

#include <cstring>

namespace mooncake {

namespace {

/** Bytes that are copied in less time than a thread takes to wake up, and what a piece counts beside its bytes. */
constexpr u64 INLINE_BYTES = 64 << 10;
constexpr u64 PIECE_COST = 512;

/** False where it was to be verified and is wrong. Ranges of one record may overlap. */
bool copyPiece(const Piece& piece, bool verify) {
  const u8* const from = piece.source->base + piece.remoteOffset;
  if (verify) return copyVerified(piece.address, from, piece.length);
  std::memmove(piece.address, from, piece.length);
  return true;
}

class LocalLink final : public Link {
 public:
  LocalLink(CopyPool& copies, LinkEvents& events) : copies_(copies), events_(events) {
    capabilities_.copy = true;
    capabilities_.verify = true;
    capabilities_.bandwidth = 10e9;
    capabilities_.windowBytes = u64{16} << 20;
  }

  const std::string& name() const override { return name_; }
  const Capabilities& capabilities() const override { return capabilities_; }
  LinkState state() const override { return closed_ ? LinkState::down : LinkState::up; }
  Status failure() const override { return {}; }
  bool reaches(const Slice& slice) const override { return !slice.file; }

  void post(Slice& slice) override {
    const bool small = slice.bytes + slice.count * PIECE_COST <= INLINE_BYTES;
    if (small || !copies_.submit({run, this, &slice})) run(this, &slice);
  }

  void cancel(Batch&) override {}  // a slice takes less than a millisecond
  void close() override { closed_ = true; }

 private:
  static void run(void* self, void* item) {
    auto& link = *static_cast<LocalLink*>(self);
    auto& slice = *static_cast<Slice*>(item);
    if (link.closed_) return link.events_.settled(slice, {Code::closed, "the engine is closed"}, false);
    const bool verify = slice.batch->verify();
    Status status;
    slice.forEach([&](const Piece& piece) {
      if (copyPiece(piece, verify) || !status.ok()) return;
      status = {Code::corrupt, std::to_string(piece.length) + " bytes at " + std::to_string(piece.localOffset) +
                                   " of segment " + std::to_string(piece.local->id) + " are not what was copied there"};
    });
    const bool verified = verify && status.ok();
    link.events_.settled(slice, std::move(status), verified);
  }

  CopyPool& copies_;
  LinkEvents& events_;
  const std::string name_ = "local";
  Capabilities capabilities_;
  std::atomic<bool> closed_{false};
};

class LocalTransport final : public Transport {
 public:
  explicit LocalTransport(TransportContext& context) : copies_(context.copies) {}

  const char* name() const override { return "local"; }
  Probe probe() override { return {true, std::to_string(copies_.threads()) + " copy threads"}; }
  Expected<Settings> listen(const Settings&) override {
    return Status(Code::notSupported, "transport local serves this process alone");
  }
  Expected<std::vector<std::unique_ptr<Link>>> open(const Settings&, Peer&, LinkEvents& events) override {
    std::vector<std::unique_ptr<Link>> links;
    links.push_back(std::make_unique<LocalLink>(copies_, events));
    return links;
  }
  void close() override {}

 private:
  CopyPool& copies_;
};

}  // namespace

std::unique_ptr<Transport> makeLocalTransport(TransportContext& context) {
  return std::make_unique<LocalTransport>(context);
}

}  // namespace mooncake
