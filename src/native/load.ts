/**
 * Finds the native accelerator. It is optional: what was tried and why it was not used is kept for those who ask
 * (`mooncake-ts doctor`, TransferEngine#why), and nothing here throws. In order:
 *
 *   MOONCAKE_NATIVE      a path, then nothing else is tried; or `off`
 *   platform package     @mooncake-ts/linux-x64 or -arm64, where installed
 *   dist/native          what a checkout built
 *
 * An addon of another version is refused: it may lay out its arguments differently.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Addon, INTERFACE } from './addon.js';

export interface LoadedAddon {
  /** Undefined: TypeScript moves the bytes. */
  addon?: Addon;
  /** Where `addon` was found. */
  path?: string;
  /** What was tried without success, in order. */
  tried: { path: string; why: string }[];
}

const require = createRequire(import.meta.url);
const version = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')).version as string;

let loaded: LoadedAddon | undefined;

/** Where an addon may be; `why` says what makes a place useless before it is opened. */
function* places(): Generator<{ path: string; why?: string }> {
  const wanted = process.env.MOONCAKE_NATIVE;
  if (wanted === 'off') return yield { path: 'MOONCAKE_NATIVE', why: 'switched off (MOONCAKE_NATIVE=off)' };
  if (process.platform !== 'linux') {
    return yield { path: 'mooncake.node', why: `the accelerator is for Linux, this is ${process.platform}` };
  }
  if (wanted) return yield { path: resolve(wanted) };
  const platform = `@mooncake-ts/linux-${process.arch}`;
  try {
    yield { path: require.resolve(`${platform}/mooncake.node`) };
  } catch {
    yield { path: platform, why: 'not installed' };
  }
  const built = fileURLToPath(new URL('../../native/mooncake.node', import.meta.url));
  yield existsSync(built) ? { path: built } : { path: built, why: 'not built' };
}

function open(path: string): { addon?: Addon; why?: string } {
  let addon: Addon;
  try {
    addon = require(path) as Addon;
  } catch (error) {
    return { why: (error as Error).message.split('\n')[0].replace(`${path}: `, '') };
  }
  if (addon.version !== version) return { why: `it is of version ${addon.version}, this package is ${version}` };
  if (addon.interface !== INTERFACE) {
    return { why: `its interface is ${addon.interface}, this package needs ${INTERFACE}: build it again` };
  }
  return { addon };
}

/** The addon, or why there is none. Looked for once. */
export function loadAddon(): LoadedAddon {
  if (loaded) return loaded;
  const tried: LoadedAddon['tried'] = [];
  loaded = { tried };
  for (const { path, why } of places()) {
    const found = why === undefined ? open(path) : { why };
    if ('addon' in found) {
      loaded = { addon: found.addon, path, tried };
      break;
    }
    tried.push({ path, why: found.why! });
  }
  return loaded;
}

/** Why there is no addon, in one line. */
export function whyNoAddon({ tried }: LoadedAddon): string {
  return tried.map(({ path, why }) => `${path}: ${why}`).join('; ');
}

let noted = false;

/** Says once that TypeScript moves the bytes, and why; not to those who switched the accelerator off themselves. */
export function noteFallback(): void {
  if (noted || process.env.MOONCAKE_NATIVE === 'off') return;
  noted = true;
  process.emitWarning(
    `the native accelerator is not used, TypeScript moves the bytes (${whyNoAddon(loadAddon())}); mooncake-ts doctor says what to do`,
    { type: 'MooncakeWarning', code: 'MOONCAKE_NO_ACCELERATOR' },
  );
}
