// The one link of an engine to its own file segments: it carries copies between memory and files, and between
// files. A copy that has ended is in the page cache or on the device; nothing here waits for either to be
// durable (fsync).
#pragma once

#include "transport/file/jobs.h"
#include "transport/file/runner.h"

namespace mooncake::file {

enum class Io : u8 { any, uring, threads };

class FileLink final : public Link {
public:
  FileLink(Io io, LinkEvents& events);
  ~FileLink() override { close(); }

  const std::string& name() const override { return name_; }
  const Capabilities& capabilities() const override { return capabilities_; }
  LinkState state() const override;
  Status failure() const override { return jobs_.why(); }
  bool reaches(const Slice& slice) const override { return slice.file; }
  void post(Slice& slice) override;
  void cancel(Batch& batch) override { jobs_.cancel(batch); }
  void close() override;

private:
  Runner* runner();

  const Io io_;
  const std::string name_ = "file";
  Capabilities capabilities_;
  Jobs jobs_;
  /** Started with the first slice: most engines have no files. */
  std::mutex starting_;
  std::unique_ptr<Runner> runner_;
  bool closed_ = false;
};

} // namespace mooncake::file
