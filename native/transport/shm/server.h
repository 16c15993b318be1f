// The owner's side: grants local peers access to segments and takes it back, and moves bytes itself where a peer cannot.
// A grant holds its segment until the grantee says that no slice of its touches it any more, or is gone: so `remove` ends
// when no late slice can reach the memory. A grantee that does not answer (stopped) is waited for only where it could
// write foreign memory; a mapped memfd's pages are nobody else's, so its hold is dropped after a while.
#pragma once

#include "transport/shm/channel.h"
#include "transport/shm/loop.h"
#include "transport/shm/mapping.h"
#include "transport/shm/place.h"

#include <atomic>
#include <condition_variable>
#include <unordered_map>

namespace mooncake::shm {

class Server {
 public:
  Server(TransportContext& context, std::shared_ptr<Loop> loop, Place place);
  ~Server() { close(); }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  Status start();
  const Settings& announced() const { return place_.announced(); }
  /** Ends connections; work of theirs that is under way is waited for. Idempotent; not from the loop's thread. */
  void close();

 private:
  struct Grant {
    SegmentRef hold;
    /** Mapped, and its pages are nobody else's when the segment has gone: a late slice does no harm. */
    bool harmless = false;
    bool revoked = false;
    u32 waitedMilliseconds = 0;
  };

  struct Client {
    u64 id = 0;
    Channel channel;
    bool greeted = false;
    u32 ungreetedMilliseconds = 0;
    std::unordered_map<u32, Grant> grants;
    std::shared_ptr<Mapping> ring;
    RingBody shape;
    u32 working = 0;
    /** Its connection has ended: what it asked for is not begun any more. */
    std::shared_ptr<std::atomic<bool>> gone = std::make_shared<std::atomic<bool>>(false);
  };

  /** A stage on its way through a copy thread. */
  struct Work {
    u64 client = 0;
    Message request;
    std::shared_ptr<Mapping> ring;
    RingBody shape;
    std::shared_ptr<const std::atomic<bool>> gone;
    Message reply;
  };

  void accept();
  void serve(u64 id, u32 events);
  /** Not ok: the connection ends. */
  Status handle(Client& client, Message& message, Fd descriptor);
  Status greet(Client& client, const Message& message);
  Status grant(Client& client, const Message& message);
  Status attachRing(Client& client, const Message& message, const Fd& descriptor);
  Status begin(Client& client, Message& message);
  void perform(Work& work);
  Status move(const Work& work, u64& crc);
  void reply(const Work& work);
  void revoke(u32 segment);
  void startTicking();
  void tick(u32 milliseconds);
  /** True: grants that were revoked are waited for. */
  bool expireGrants(u32 milliseconds);
  /** True: somebody has not said who he is. */
  bool expireStrangers(u32 milliseconds);
  Status send(Client& client, const Message& message, Fd descriptor = Fd());
  void drop(u64 id);

  TransportContext& context_;
  const std::shared_ptr<Loop> loop_;
  Place place_;
  u64 watch_ = 0;
  bool open_ = false;
  /** The loop's thread alone. */
  std::unordered_map<u64, Client> clients_;
  u64 nextClient_ = 1;
  /** This process has no descriptors left: asked again at the next tick. */
  bool paused_ = false;

  std::mutex mutex_;
  std::condition_variable idle_;
  u32 working_ = 0;
};

}  // namespace mooncake::shm
