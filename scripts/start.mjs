// `npm start [-- options]`: sets up what is missing, then runs the main job: a cluster of engines that share their KV cache,
// and the proof that its answers are right (`mooncake-ts up --demo`). `npm start -- TRACE.jsonl [options]` replays a trace.
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { join } from 'node:path';
import { setup } from './setup.mjs';
import { root, run } from './steps.mjs';

await run(async () => {
  await setup();
  const args = process.argv.slice(2);
  const command = args.length > 0 && !args[0].startsWith('-') ? ['replay'] : ['up', '--demo'];
  const child = spawn(process.execPath, [join(root, 'dist/src/cli/main.js'), ...command, ...args], {
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
  process.exitCode = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal]));
  });
});
