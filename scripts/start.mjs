// `npm start [-- TRACE.jsonl] [options]`: sets up what is missing, then runs the main job: the replay of a trace through
// the prefix index and the eviction policies, on a generated multi-turn workload when no trace is named.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root, run, setup } from './setup.mjs';

await run(async () => {
  await setup();
  const child = spawn(process.execPath, [join(root, 'dist/src/cli/main.js'), 'replay', ...process.argv.slice(2)], {
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
  process.exitCode = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => resolve(code ?? 1));
  });
});
