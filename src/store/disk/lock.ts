/**
 * A folder that one process at a time may use. The lock is a name of the kernel's (an abstract Unix socket) made of the
 * folder's device and inode: it is gone when the process is, however it ended, and leaves nothing behind in the folder.
 * Processes of other network name spaces, as of another container, do not see it.
 */
import { stat } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { errors } from '../../core/errors.js';

/** @throws ERR_BUSY while another has it, ERR_NOT_SUPPORTED outside of Linux */
export async function lockFolder(folder: string): Promise<Server> {
  if (process.platform !== 'linux') throw errors.notSupported('the disk tier', 'it needs Linux');
  const { dev, ino } = await stat(folder);
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(error.code === 'EADDRINUSE' ? errors.busy(`the folder ${folder}`) : error),
    );
    server.listen(`\0mooncake-ts-disk-${dev}-${ino}`, resolve);
  });
  return server.unref();
}

export function unlock(lock: Server): Promise<void> {
  return new Promise((resolve) => lock.close(() => resolve()));
}
