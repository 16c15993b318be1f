// How the ends of a connection of ours know that the other is there. Times are of the loop's clock, which stands while our
// own process does: a side that was stopped does not take the other for dead.
#pragma once

#include "engine/status.h"

namespace mooncake::tcp {

/** Whoever has something under way, or heard from the other a moment ago, sends at least so often. */
inline constexpr u64 BEAT_MS = 250;
/** With something under way, a side that says nothing for so long is dead. */
inline constexpr u64 SILENCE_MS = 900;
/** A client with nothing under way beats so often, and takes the server for dead after so long. */
inline constexpr u64 IDLE_BEAT_MS = 2000;
inline constexpr u64 IDLE_SILENCE_MS = 6000;
/** A server beats as long as it heard something so recently. */
inline constexpr u64 HEARD_MS = 1000;
/** To connect, or to say who one is. */
inline constexpr u64 GREETING_MS = 3000;
/** Stock peers send no signs of life: no progress for so long is the end (as MC_TCP_STATUS_TIMEOUT_SEC). */
inline constexpr u64 STOCK_SILENCE_MS = 30'000;

}  // namespace mooncake::tcp
