// Engine::statistics as JSON: EngineStatistics of src/transfer/engine/api.ts.
#pragma once

#include "engine/dispatcher.h"

namespace mooncake {

struct StatisticsInput {
  std::vector<std::shared_ptr<Dispatcher>> peers;
  const std::vector<std::pair<std::string, Probe>>* probes = nullptr;
  u64 active = 0;
  u64 completed = 0;
  u64 failed = 0;
  std::vector<Segment> segments;
};

std::string statisticsJson(const StatisticsInput& input);

/** `text` as a JSON string, quotes included. Bytes that are not UTF-8 go through as they are. */
std::string quoted(const std::string& text);

}  // namespace mooncake
