// Our memory as a buffer of JavaScript's.
#pragma once

#include "memory/allocate.h"

#include <functional>
#include <napi.h>

namespace mooncake::binding {

/** An ArrayBuffer over memory that stays until `gone` runs: when the collector finds the buffer or it is detached, or at once
    where Node takes no such buffer and this throws. */
Napi::Value bufferOver(Napi::Env env, u8* base, u64 length, std::function<void()> gone);

/** The same over a mapping, which it shares until then. */
Napi::Value bufferOver(Napi::Env env, std::shared_ptr<Mapping> mapping, u64 length, std::function<void()> gone = {});

}  // namespace mooncake::binding
