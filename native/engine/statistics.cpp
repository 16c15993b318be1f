#include "engine/statistics.h"

#include <cstdio>

namespace mooncake {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + '"';
}

namespace {

/** Why it is down, or how it moves bytes. */
std::string detailOf(const Link& link) {
  const Status failure = link.failure();
  return failure.ok() ? link.detail() : failure.detail;
}

std::string linkJson(const std::string& peer, const Rail& rail) {
  const LinkStats& stats = rail.link->stats;
  return "{\"peer\":" + quoted(peer) + ",\"transport\":" + quoted(rail.transport) + ",\"name\":" + quoted(rail.link->name()) +
         ",\"alive\":" + (rail.link->state() == LinkState::up ? "true" : "false") +
         ",\"detail\":" + quoted(detailOf(*rail.link)) +
         ",\"slices\":" + std::to_string(stats.slices) + ",\"bytes\":" + std::to_string(stats.bytes) +
         ",\"failures\":" + std::to_string(stats.failures) + ",\"inFlightBytes\":" + std::to_string(stats.inFlightBytes) +
         ",\"bandwidth\":" + std::to_string(static_cast<u64>(stats.bandwidth)) + "}";
}

}  // namespace

std::string statisticsJson(const StatisticsInput& input) {
  std::string links;
  for (const auto& peer : input.peers) {
    for (const Rail& rail : peer->rails()) {
      if (!links.empty()) links += ',';
      links += linkJson(peer->peer().name(), rail);
    }
  }
  std::string transports;
  for (const auto& [name, probe] : *input.probes) {
    if (!transports.empty()) transports += ',';
    transports += "{\"name\":" + quoted(name) + ",\"usable\":" + (probe.usable ? "true" : "false") +
                  ",\"detail\":" + quoted(probe.detail) + "}";
  }
  u64 bytes = 0;
  for (const Segment& segment : input.segments) bytes += segment.length;
  return "{\"links\":[" + links + "],\"transports\":[" + transports +
         "],\"batches\":{\"active\":" + std::to_string(input.active) + ",\"completed\":" + std::to_string(input.completed) +
         ",\"failed\":" + std::to_string(input.failed) + "},\"segments\":{\"count\":" + std::to_string(input.segments.size()) +
         ",\"bytes\":" + std::to_string(bytes) + "}}";
}

}  // namespace mooncake
