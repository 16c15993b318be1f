/** Bundles a module of the lane as a user of esbuild would, for a browser or for a Cloudflare-style worker. */
import { join } from 'node:path';
import { build } from 'esbuild';
import { lane } from './runtimes.js';

export type Target = 'browser' | 'workerd';

/** One file of a bundle: its name relative to the output, and its contents. */
export interface BundleFile {
  name: string;
  contents: Uint8Array;
}

/**
 * The bundle of `entry` (a path below the lane's folder) or of `source`; nothing is written to disk. For workerd, a
 * `.wasm` import stays an import of a file beside the script (loader `copy`), which is what wrangler does too.
 */
export async function bundle(
  { entry, source }: { entry?: string; source?: string },
  target: Target,
  { minify = false } = {},
): Promise<BundleFile[]> {
  const { outputFiles } = await build({
    ...(entry === undefined
      ? { stdin: { contents: source ?? '', resolveDir: lane, sourcefile: 'entry.js' } }
      : { entryPoints: [join(lane, entry)] }),
    bundle: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    conditions: target === 'workerd' ? ['workerd', 'worker', 'browser'] : ['browser'],
    loader: { '.wasm': 'copy' },
    assetNames: '[name]',
    outdir: join(lane, 'out'),
    minify,
    legalComments: 'none',
    write: false,
    logLevel: 'error',
  });
  return outputFiles.map(({ path, contents }) => ({ name: path.slice(path.lastIndexOf('/') + 1), contents }));
}
