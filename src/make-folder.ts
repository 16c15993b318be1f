/**
 * Makes folders as `mkdir -p` does. Node's own `recursive` tries for ever where a file system has no room for folders of
 * anybody's (/proc), in a thread that also keeps the process from ending.
 */
import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/** A folder, and those above it that are missing. Rejects as `mkdir` does where it cannot be made. */
export async function makeFolder(path: string): Promise<void> {
  try {
    await make(path);
  } catch (error) {
    const above = dirname(path);
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || above === path) throw error;
    await makeFolder(above);
    await make(path);
  }
}

async function make(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const isThere = (error as NodeJS.ErrnoException).code === 'EEXIST' && (await stat(path)).isDirectory();
    if (!isThere) throw error;
  }
}
