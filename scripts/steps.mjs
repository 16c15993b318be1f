// What the scripts share: where the project is, whether its sources have changed, and commands that run behind one line.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const LONG = 15 * 60_000;
/** Between two signs of life in a log. */
const QUIET = 30_000;

/** SHA-256 over the paths and contents below the named files and folders. */
export function fingerprint(base, names) {
  const hash = createHash('sha256');
  const visit = (path, name) => {
    if (!existsSync(path)) return;
    if (statSync(path).isDirectory()) {
      for (const entry of readdirSync(path).sort()) visit(join(path, entry), `${name}/${entry}`);
    } else {
      hash.update(`${name}\0`).update(readFileSync(path)).update('\0');
    }
  };
  for (const name of names) visit(join(base, name), name);
  return hash.digest('hex');
}

/** Runs a command, showing one line while it works; its output is shown only when it fails. */
export function step(label, command, args, { cwd = root, env = process.env, timeout = LONG } = {}) {
  const started = Date.now();
  const live = process.stderr.isTTY;
  process.stderr.write(live ? `  ${label} …` : `  ${label} …\n`);
  return new Promise((resolve, reject) => {
    // Windows runs npm.cmd through a shell or not at all.
    const shell = command.endsWith('.cmd');
    const child = spawn(command, args, { cwd, env, shell, stdio: ['ignore', 'pipe', 'pipe'], timeout });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
      });
    }
    const tick = () => {
      const seconds = Math.round((Date.now() - started) / 1000);
      // Ninja says how far it is: [12/345].
      const [share = ''] = output.match(/\[\d+\/\d+\]/g)?.slice(-1) ?? [];
      process.stderr.write(`${live ? '\r' : ''}  ${label} … ${seconds} s ${share}${live ? '' : '\n'}`);
    };
    const ticker = setInterval(tick, live ? 1000 : QUIET);
    const finish = (error) => {
      clearInterval(ticker);
      const seconds = ((Date.now() - started) / 1000).toFixed(1);
      process.stderr.write(`${live ? '\r\x1b[K' : ''}  ${label}: ${error ? 'failed' : 'done'} in ${seconds} s\n`);
      if (!error) return resolve(output);
      process.stderr.write(output);
      reject(error);
    };
    child.on('error', (cause) => finish(new Error(`${command}: ${cause.message}`, { cause })));
    child.on('exit', (code, signal) =>
      finish(code === 0 ? undefined : new Error(`${command} ${args.join(' ')} ended with ${signal ?? code}`)),
    );
  });
}

/** Runs `main` and turns an error into one line and a failing exit code. */
export async function run(main) {
  try {
    await main();
  } catch (error) {
    process.stderr.write(`${process.env.DEBUG ? error.stack : error.message}\n`);
    process.exitCode = 1;
  }
}
