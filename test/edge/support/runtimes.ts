/**
 * Where the run-times are. bun, deno and workerd are binaries inside per-platform npm packages, called there: the lane is
 * installed without install scripts (which may download), so the launchers of `bun` and `deno` are not set up.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { note } from '../measure.js';
import type { ScenarioInput, ScenarioReport } from '../scenario.js';

/** The folder of the lane: `test/`, and `node_modules/` with the tarball and the run-times. */
export const lane = fileURLToPath(new URL('../../..', import.meta.url));

const PACKAGES = {
  bun: { scope: '@oven', file: 'bin/bun' },
  deno: { scope: '@deno', file: 'deno' },
  workerd: { scope: '@cloudflare', file: 'bin/workerd' },
};

/** Path of a run-time's binary. npm installs the one package of the scope that fits the platform, or none. */
export function find(name: keyof typeof PACKAGES): string | undefined {
  const { scope, file } = PACKAGES[name];
  const folder = join(lane, 'node_modules', scope);
  if (!existsSync(folder)) return undefined;
  return readdirSync(folder)
    .map((entry) => join(folder, entry, file))
    .find((path) => existsSync(path));
}

/** Runs a program to its end; what it wrote to stdout. Fails when it fails or takes longer than `timeout` ms. */
function output(command: string, args: string[], { timeout = 60_000, env = process.env } = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: lane, env, stdio: ['ignore', 'pipe', 'pipe'], timeout });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) resolve(stdout);
      else reject(new Error(`${command} ended with ${signal ?? code}\n${stderr}`));
    });
  });
}

/**
 * Runs the scenario in a program that runs JavaScript files, and prints how fast it is there. The input is a module, so
 * that the run-time needs no right to read files; the answers come back as a line on stdout.
 */
export async function runScenario(
  runtime: string,
  command: string,
  args: string[],
  input: ScenarioInput,
): Promise<ScenarioReport> {
  const folder = mkdtempSync(join(lane, 'scenario-'));
  try {
    writeFileSync(join(folder, 'input.js'), `export default ${JSON.stringify(input)};\n`);
    writeFileSync(
      join(folder, 'main.js'),
      `import { run } from '../test/edge/scenario.js';
       import { measure } from '../test/edge/measure.js';
       import input from './input.js';
       console.log(JSON.stringify({ report: run(input), ms: measure() }));\n`,
    );
    const { report, ms } = JSON.parse(await output(command, [...args, join(folder, 'main.js')]));
    note(runtime, ms);
    return report;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
