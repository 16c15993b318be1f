// What the node service needs of the kernel and Node does not have: descriptors of other processes, mapped as buffers, and
// who is at the other end of a socket.
#include "binding/arguments.h"
#include "binding/buffer.h"
#include "binding/exports.h"
#include "memory/process.h"
#include "service/descriptor_socket.h"
#include "transport/shm/mapping.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>

namespace mooncake::binding {

namespace {

using service::DescriptorSocket;
using service::Ticket;

/** From here on, a mapping is taken down on a thread of its own: the kernel works a millisecond for each 64 MiB. */
constexpr u64 LARGE = 64 << 20;

Ticket ticketOf(Napi::Env env, Napi::Uint8Array view) {
  Ticket ticket{};
  if (view.ByteLength() != ticket.size()) refuse(env, {Code::invalidArgument, "ticket is not 16 bytes"});
  std::memcpy(ticket.data(), view.Data(), ticket.size());
  return ticket;
}

void unmap(std::shared_ptr<shm::Mapping> mapping) {
  if (mapping->length() < LARGE) return;
  try {
    std::thread([held = std::move(mapping)]() mutable { held.reset(); }).detach();
  } catch (const std::system_error&) {
    // No thread to be had: it is done here.
  }
}

/** The descriptor's memory as a buffer; local peers may map it too, as it is one of processMemory(). */
Napi::Value mapped(Napi::Env env, Fd fd, u64 offset, u64 length) {
  Expected<shm::Mapping> opened = shm::Mapping::open(fd.get(), offset, length, true);
  if (!opened.ok()) return refuse(env, opened.status);
  auto mapping = std::make_shared<shm::Mapping>(std::move(opened.value));
  Segment segment;
  segment.base = mapping->data();
  segment.length = length;
  segment.backing = Backing::memfd;
  segment.fdOffset = offset;
  segment.fd = ::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0);
  if (segment.fd < 0) return refuse(env, systemError("F_DUPFD_CLOEXEC", errno));
  const int copy = segment.fd;
  const Expected<u32> added = processMemory().add(std::move(segment), {});
  if (!added.ok()) {
    ::close(copy);
    return refuse(env, added.status);
  }
  u8* const base = mapping->data();
  return bufferOver(env, base, length, [mapping, id = added.value]() mutable {
    static_cast<void>(processMemory().remove(id, {}));
    unmap(std::move(mapping));
  });
}

class DescriptorSocketObject final : public Napi::ObjectWrap<DescriptorSocketObject> {
 public:
  using Info = const Napi::CallbackInfo&;

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "DescriptorSocket",
                       {
                           InstanceMethod<&DescriptorSocketObject::take>("take"),
                           InstanceMethod<&DescriptorSocketObject::takeAllocation>("takeAllocation"),
                           InstanceMethod<&DescriptorSocketObject::close>("close"),
                           InstanceAccessor<&DescriptorSocketObject::waiting>("waiting"),
                       });
  }

  explicit DescriptorSocketObject(Info info) : ObjectWrap(info) {
    Arguments arguments(info);
    const std::string path = arguments.text(0, "path");
    const Napi::Object given = arguments.object(1, "limits");
    service::DescriptorLimits limits;
    limits.patience = std::chrono::milliseconds(arguments.property(given, "patienceMs", 30'000, 3'600'000));
    limits.tickets = arguments.property(given, "tickets", limits.tickets, 1 << 20);
    limits.connections = arguments.property(given, "connections", limits.connections, 1 << 16);
    if (!arguments.ok()) arguments.refuse();
    Expected<std::unique_ptr<DescriptorSocket>> listening = DescriptorSocket::listen(path, limits);
    if (!listening.ok()) refuse(info.Env(), listening.status);
    socket_ = std::move(listening.value);
  }

 private:
  Napi::Value take(Info info) {
    Arguments arguments(info);
    const Napi::Uint8Array view = arguments.view(0, "ticket");
    const u64 pid = arguments.count(1, "pid", INT32_MAX);
    const u64 offset = arguments.count(2, "offset");
    const u64 length = arguments.count(3, "length");
    if (!arguments.ok()) return arguments.refuse();
    const Ticket ticket = ticketOf(info.Env(), view);
    if (!socket_) return refuse(info.Env(), {Code::closed, "the descriptor socket is closed"});
    Expected<Fd> taken = socket_->take(ticket, static_cast<pid_t>(pid));
    if (!taken.ok()) return refuse(info.Env(), taken.status);
    return mapped(info.Env(), std::move(taken.value), offset, length);
  }

  Napi::Value takeAllocation(Info info) {
    Arguments arguments(info);
    const Napi::Uint8Array view = arguments.view(0, "ticket");
    const u64 pid = arguments.count(1, "pid", INT32_MAX);
    if (!arguments.ok()) return arguments.refuse();
    const Ticket ticket = ticketOf(info.Env(), view);
    if (!socket_) return refuse(info.Env(), {Code::closed, "the descriptor socket is closed"});
    Expected<Fd> taken = socket_->take(ticket, static_cast<pid_t>(pid), service::Handed::allocation);
    if (!taken.ok()) return refuse(info.Env(), taken.status);
    return Napi::Number::New(info.Env(), taken.value.release());
  }

  Napi::Value waiting(Info info) {
    return Napi::Number::New(info.Env(), socket_ ? static_cast<double>(socket_->waiting()) : 0);
  }

  Napi::Value close(Info info) {
    socket_.reset();
    return info.Env().Undefined();
  }

  std::unique_ptr<DescriptorSocket> socket_;
};

/** Memory that `allocate` made, or `take` mapped, for the service that listens at a path. */
Napi::Value shareMemory(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const std::string path = arguments.text(0, "path");
  const Napi::Uint8Array given = arguments.view(1, "ticket");
  const Napi::Uint8Array view = arguments.view(2, "memory");
  const u64 timeout = arguments.count(3, "timeoutMs", INT32_MAX);
  if (!arguments.ok()) return arguments.refuse();
  const Ticket ticket = ticketOf(info.Env(), given);
  const u64 address = reinterpret_cast<u64>(view.Data());
  const SegmentRef segment = processMemory().holdAddress(address, view.ByteLength());
  if (!segment) return refuse(info.Env(), {Code::segment, "memory is none that the accelerator has allocated"});
  const u64 offset = segment->fdOffset + (address - reinterpret_cast<u64>(segment->base));
  const Status status =
      service::handOver(path, ticket, offset + view.ByteLength(), segment->fd, std::chrono::milliseconds(timeout));
  if (!status.ok()) return refuse(info.Env(), status);
  return Napi::Number::New(info.Env(), static_cast<double>(offset));
}

/** A descriptor that the driver made of an allocation on a GPU, for the service that listens at a path. */
Napi::Value shareAllocation(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const std::string path = arguments.text(0, "path");
  const Napi::Uint8Array given = arguments.view(1, "ticket");
  const u64 fd = arguments.count(2, "fd", INT32_MAX);
  const u64 size = arguments.count(3, "size");
  const u64 timeout = arguments.count(4, "timeoutMs", INT32_MAX);
  if (!arguments.ok()) return arguments.refuse();
  const Ticket ticket = ticketOf(info.Env(), given);
  const Status status = service::handOver(path, ticket, size, static_cast<int>(fd), std::chrono::milliseconds(timeout),
                                          service::Handed::allocation);
  if (!status.ok()) return refuse(info.Env(), status);
  return info.Env().Undefined();
}

/** Takes a buffer's memory away from JavaScript at once: the collector may take its time. */
Napi::Value release(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsArrayBuffer()) refuse(info.Env(), {Code::invalidArgument, "memory is not an ArrayBuffer"});
  info[0].As<Napi::ArrayBuffer>().Detach();
  return info.Env().Undefined();
}

Napi::Value peerCredentials(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const u64 fd = arguments.count(0, "fd", INT32_MAX);
  if (!arguments.ok()) return arguments.refuse();
  const Expected<service::Peer> peer = service::peerOf(static_cast<int>(fd));
  if (!peer.ok()) return refuse(info.Env(), peer.status);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("pid", static_cast<double>(peer.value.pid));
  result.Set("uid", static_cast<double>(peer.value.uid));
  return result;
}

}  // namespace

void exportService(Napi::Env env, Napi::Object exports) {
  exports.Set("DescriptorSocket", DescriptorSocketObject::define(env));
  exports.Set("shareMemory", Napi::Function::New(env, shareMemory, "shareMemory"));
  exports.Set("shareAllocation", Napi::Function::New(env, shareAllocation, "shareAllocation"));
  exports.Set("releaseMemory", Napi::Function::New(env, release, "releaseMemory"));
  exports.Set("peerCredentials", Napi::Function::New(env, peerCredentials, "peerCredentials"));
}

}  // namespace mooncake::binding
