/**
 * One master a folder: a socket in it that the master listens on. It ends with its process, however that ends, so nothing
 * is left that could be taken for a living one.
 */
import { type FileHandle, open, rm, stat } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { errors } from '../../core/errors.js';

/** Two that found the same dead socket are told apart after so long: the one whose socket is gone gives way. */
const SETTLE_MS = 50;

export class FolderLock {
  readonly #server: Server;
  readonly #folder: FileHandle;

  private constructor(server: Server, folder: FileHandle) {
    this.#server = server;
    this.#folder = folder;
  }

  /** Throws ERR_DATA_DIR where another master uses the folder. */
  static async take(folder: string): Promise<FolderLock> {
    // A socket's path must be short; that of an open folder is.
    const handle = await open(folder, 'r');
    try {
      const path = process.platform === 'linux' ? `/proc/self/fd/${handle.fd}/lock` : join(folder, 'lock');
      if (await answers(path)) throw inUse(folder);
      await rm(path, { force: true });
      const server = createServer((socket) => socket.destroy());
      await new Promise<void>((resolve, reject) => {
        server.once('error', (error) => reject(errors.dataDir(folder, `it cannot be locked: ${error.message}`, error)));
        server.listen(path, resolve);
      });
      server.unref();
      const mine = (await stat(path)).ino;
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
      const there = await stat(path).catch(() => undefined);
      // Left open until the process ends: to close it would take the other's name away.
      if (there?.ino !== mine) throw inUse(folder);
      return new FolderLock(server, handle);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async release(): Promise<void> {
    // Takes the name away, by the path through the open folder.
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await this.#folder.close();
  }
}

function inUse(folder: string) {
  return errors.dataDir(folder, 'another master uses it; give each master a folder of its own');
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
