/** How every server of the package begins to listen: one error that says in words why an address cannot be had. */
import type { AddressInfo, Server } from 'node:net';
import { errors, type MooncakeError } from './core/errors.js';
import { formatName } from './transfer/metadata/name.js';

const WHY: Readonly<Record<string, string>> = {
  EADDRINUSE: 'the port is in use (EADDRINUSE): end who has it, or name another port',
  EADDRNOTAVAIL: 'this machine has no such address (EADDRNOTAVAIL)',
  EACCES: "that is not allowed to this user (EACCES); ports below 1024 are the system's",
  ENOTFOUND: 'there is no host of that name (ENOTFOUND)',
  EAI_AGAIN: 'its name cannot be looked up now (EAI_AGAIN)',
};

/** `address` as a user would name it; `cause` is what the system said. */
export function listenError(address: string, cause: NodeJS.ErrnoException): MooncakeError {
  return errors.listen(address, WHY[cause.code ?? ''] ?? cause.message, cause);
}

/** Resolves with the port. Throws ERR_PEER where the address cannot be had. */
export function listening(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    // For good: a connection that cannot be accepted later (EMFILE) is an event of the server too, and would end the process.
    server.on('error', (cause) => reject(listenError(formatName({ host, port }), cause)));
    server.listen({ host, port }, () => resolve((server.address() as AddressInfo).port));
  });
}
