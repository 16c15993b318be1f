// `npm test [-- LANE …]`: sets up what is missing, then runs the lanes (scripts/lanes.mjs) and ends with one line,
// `N passed, N failed, N skipped`. Without names, the lanes of CI's list run; what this machine cannot run is skipped
// with the reason, and in CI (CI=true) that is a failure.
import { setup } from './setup.mjs';
import { run } from './steps.mjs';

await run(async () => {
  await setup();
  const { LANES, runLane } = await import('./lanes.mjs');
  const named = process.argv.slice(2);
  for (const name of named) {
    if (!Object.hasOwn(LANES, name))
      throw new Error(`no test lane ${name}; there are ${Object.keys(LANES).join(', ')}`);
  }
  const names = named.length > 0 ? named : Object.keys(LANES).filter((name) => LANES[name].ci);
  const total = { passed: 0, failed: 0, skipped: 0 };
  const failures = [];
  for (const name of names) {
    const result = await runLane(name);
    for (const key of Object.keys(total)) total[key] += result[key];
    failures.push(...result.failures);
  }
  for (const failure of failures) process.stderr.write(`FAILED ${failure}\n`);
  if (process.env.CI === 'true' && total.skipped > 0) {
    process.stderr.write(`CI runs every test of its lanes: ${total.skipped} skipped count as failed\n`);
    total.failed += total.skipped;
    total.skipped = 0;
  }
  process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`);
  if (total.failed > 0 || total.passed === 0) process.exitCode = 1;
});
