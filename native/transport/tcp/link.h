// A stream as the engine sees it.
#pragma once

#include "transport/tcp/stream.h"

namespace mooncake::tcp {

class TcpLink final : public Link {
 public:
  TcpLink(std::string name, const Capabilities& capabilities, std::shared_ptr<Stream> stream)
      : name_(std::move(name)), capabilities_(capabilities), stream_(std::move(stream)) {
    stream_->start();
  }
  ~TcpLink() override { close(); }

  const std::string& name() const override { return name_; }
  const Capabilities& capabilities() const override { return capabilities_; }
  LinkState state() const override { return stream_->state(); }
  Status failure() const override { return stream_->failure(); }
  bool reaches(const Slice& slice) const override { return !slice.file; }
  void post(Slice& slice) override { stream_->post(slice); }
  void cancel(Batch& batch) override { stream_->cancel(batch); }
  void close() override { stream_->close(); }

 private:
  const std::string name_;
  const Capabilities capabilities_;
  const std::shared_ptr<Stream> stream_;
};

}  // namespace mooncake::tcp
