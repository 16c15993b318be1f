/** Runs a target until standard input ends. argv: TargetOptions as JSON. One line on standard output: its names as JSON. */
import { openTarget } from './target.js';

const target = await openTarget(JSON.parse(process.argv[2]));
process.stdin.resume();
process.stdin.once('end', () => target.close().finally(() => process.exit()));
process.stdout.write(`${JSON.stringify(target.names)}\n`);
