/** What the kernel says in /proc and /sys. Nothing here throws: what cannot be read is not there. */
import { readdirSync, readFileSync, realpathSync } from 'node:fs';
import { join, relative } from 'node:path';

export class KernelFiles {
  /** `root` is put before every path: a copy of another machine's files, or a host's seen from a container. */
  constructor(readonly root = '/') {}

  /** The file's text without white space around it. */
  text(path: string): string | undefined {
    try {
      return readFileSync(join(this.root, path), 'utf8').trim();
    } catch {
      return undefined;
    }
  }

  /** A file that holds one number. */
  number(path: string): number | undefined {
    const text = this.text(path);
    return text !== undefined && /^-?\d+$/.test(text) ? Number(text) : undefined;
  }

  /** Where a link leads, from the root on. */
  target(path: string): string | undefined {
    try {
      return relative(realpathSync(this.root), realpathSync(join(this.root, path)));
    } catch {
      return undefined;
    }
  }

  /** Names in a folder, sorted with numbers by value; none where there is no such folder. */
  names(path: string): string[] {
    try {
      return readdirSync(join(this.root, path)).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
    } catch {
      return [];
    }
  }

  /** The word in brackets of a file like "always [madvise] never". */
  chosen(path: string): string | undefined {
    return /\[([^\]]*)\]/.exec(this.text(path) ?? '')?.[1];
  }
}
