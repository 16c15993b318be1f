/**
 * A process for tests to kill and stop: a TransferEngine with one segment of 8 MiB, whose byte i is i + SEED (mod 251).
 * `node engine-child.js PLANE PORT SEED` prints its name. Ended by closing its stdin: then it closes, and must exit by itself.
 */
import { TransferEngine } from 'mooncake-ts';

const [plane, port, seed] = process.argv.slice(2);
const engine = await TransferEngine.create({ port: Number(port), native: plane === 'native' });
const { memory } = await engine.allocate(8 * 2 ** 20, { name: 'kv' });
for (let i = 0; i < memory.length; i++) memory[i] = (i + Number(seed)) % 251;
console.log(engine.name);
process.stdin.resume().on('end', () => engine.close());
