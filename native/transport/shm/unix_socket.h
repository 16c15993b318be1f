// What Unix sockets need on both sides: the address of a path, and the descriptors that came with a packet.
#pragma once

#include "engine/fd.h"
#include "engine/status.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <vector>

namespace mooncake::shm {

/** invalidArgument: an empty path, or one of more than 107 bytes. */
Expected<sockaddr_un> unixAddress(const std::string& path);

/** All that recvmsg put into the control buffer: they are the receiver's to close, also those of a packet that is refused. */
std::vector<Fd> receivedDescriptors(msghdr& header);

}  // namespace mooncake::shm
