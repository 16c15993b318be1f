// The client's end of a node service's control socket, for callers that wait within their turn of the event loop.
#include "service/control_socket.h"

#include "binding/arguments.h"
#include "binding/exports.h"

namespace mooncake::binding {

namespace {

using service::ControlSocket;

/** What `receive` answers when nothing comes any more. */
constexpr double ENDED = -1;

class ControlSocketObject final : public Napi::ObjectWrap<ControlSocketObject> {
 public:
  using Info = const Napi::CallbackInfo&;

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "ControlSocket",
                       {
                           InstanceMethod<&ControlSocketObject::send>("send"),
                           InstanceMethod<&ControlSocketObject::receive>("receive"),
                           InstanceMethod<&ControlSocketObject::wait>("wait"),
                           InstanceMethod<&ControlSocketObject::duplicate>("duplicate"),
                           InstanceMethod<&ControlSocketObject::close>("close"),
                       });
  }

  explicit ControlSocketObject(Info info) : ObjectWrap(info) {
    Arguments arguments(info);
    const std::string path = arguments.text(0, "path");
    if (!arguments.ok()) arguments.refuse();
    Expected<ControlSocket> connected = ControlSocket::connect(path);
    if (!connected.ok()) refuse(info.Env(), connected.status);
    socket_ = std::move(connected.value);
  }

 private:
  Napi::Value send(Info info) {
    Arguments arguments(info);
    const Napi::Uint8Array bytes = arguments.view(0, "bytes");
    if (!arguments.ok()) return arguments.refuse();
    const Expected<size_t> sent = socket_.send(std::span<const u8>(bytes.Data(), bytes.ByteLength()));
    if (!sent.ok()) return refuse(info.Env(), sent.status);
    return Napi::Number::New(info.Env(), static_cast<double>(sent.value));
  }

  Napi::Value receive(Info info) {
    Arguments arguments(info);
    Napi::Uint8Array into = arguments.view(0, "into");
    if (!arguments.ok()) return arguments.refuse();
    const Expected<size_t> received = socket_.receive(std::span<u8>(into.Data(), into.ByteLength()));
    if (received.ok()) return Napi::Number::New(info.Env(), static_cast<double>(received.value));
    if (received.status.code == Code::closed) return Napi::Number::New(info.Env(), ENDED);
    return refuse(info.Env(), received.status);
  }

  Napi::Value wait(Info info) {
    Arguments arguments(info);
    const bool toSend = arguments.flag(0, "toSend");
    const u64 timeout = arguments.count(1, "timeoutMs", INT32_MAX);
    if (!arguments.ok()) return arguments.refuse();
    return Napi::Boolean::New(info.Env(), socket_.wait(toSend, std::chrono::milliseconds(timeout)));
  }

  Napi::Value duplicate(Info info) {
    const Expected<int> copy = socket_.duplicate();
    if (!copy.ok()) return refuse(info.Env(), copy.status);
    return Napi::Number::New(info.Env(), copy.value);
  }

  Napi::Value close(Info info) {
    socket_ = {};
    return info.Env().Undefined();
  }

  ControlSocket socket_;
};

}  // namespace

void exportControlSocket(Napi::Env env, Napi::Object exports) {
  exports.Set("ControlSocket", ControlSocketObject::define(env));
}

}  // namespace mooncake::binding
