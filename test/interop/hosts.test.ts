/** Clusters over more than one host: what is told to others is an address that reaches them, and bytes come over the network. */
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { main } from '../support/cli.js';
import { skip } from '../support/skip.js';
import { type Host, type HostProcess, whyNoHosts, withHosts } from './hosts.js';

const child = fileURLToPath(new URL('./hosts-child.js', import.meta.url));
const python = fileURLToPath(new URL('./connect_client.py', import.meta.url));
const SEGMENT = 32 * 2 ** 20;

interface Said {
  wrong: string[];
  endpoints: string[];
  carriers: string[];
}

async function ask(store: HostProcess, what: object): Promise<Said> {
  store.send(JSON.stringify(what));
  return JSON.parse(await store.line());
}

/** A master and a node of ours on one host. */
async function cluster(left: Host): Promise<{ master: string; node: string }> {
  const named = left.address.includes(':') ? `[${left.address}]` : left.address;
  const master = `${named}:50051`;
  await left.start(process.execPath, [main, 'master', '--rpc_address', left.address, '--json']).line();
  const flags = ['--host', left.address, '--global_segment_size', `${SEGMENT}`, '--port=0', '--json'];
  const node = left.start(process.execPath, [main, 'store', '--master_server_address', master, ...flags]);
  return { master, node: JSON.parse(await node.line()).name };
}

for (const family of ['IPv4', 'IPv6'] as const) {
  const title = `a master and a node on one host, a store on another, by ${family}`;
  const why = await whyNoHosts(family);
  if (why !== undefined) {
    skip(test, title, why, 'run as root with iproute2, where network namespaces and mounts are allowed');
    continue;
  }
  test(title, () =>
    withHosts(family, async (left, right) => {
      const { master, node } = await cluster(left);
      const store = (host: Host, segments: number) =>
        host.start(process.execPath, [child, master, host.address, `${segments}`]);
      const there = store(right, SEGMENT);
      const name = await there.line();
      for (const [endpoint, host] of [
        [node, left],
        [name, right],
      ] as const) {
        assert.ok(endpoint.startsWith(family === 'IPv6' ? `[${host.address}]:` : `${host.address}:`), endpoint);
      }
      const tcp = { wrong: [], carriers: ['tcp'] };
      assert.equal(await ask(there, { put: ['to-node'], preferred: [node] }), { ...tcp, endpoints: [node] });
      const here = store(left, 0);
      await here.line();
      assert.equal(await ask(here, { put: ['to-store'], preferred: [name] }), { ...tcp, endpoints: [name] });
      const both = [node, name].sort();
      assert.equal(await ask(there, { get: ['to-node', 'to-store'] }), { ...tcp, endpoints: both });
    }),
  );
}

const why = await whyNoHosts('IPv4');
const title = 'a stock client on one host, a master, a node and a store of ours on another';
if (why !== undefined) skip(test, title, why, 'run as root with iproute2');
else {
  test(title, () =>
    withHosts('IPv4', async (left, right) => {
      const { master, node } = await cluster(left);
      const args = [python, master, 'P2PHANDSHAKE', `${right.address}:12345`, `${SEGMENT}`];
      const stock = right.start(process.env.MOONCAKE_PYTHON!, args);
      const say = async (call: string, ...rest: unknown[]) => {
        stock.send(JSON.stringify([call, rest]));
        return JSON.parse(await stock.line()).result;
      };
      assert.is(JSON.parse(await stock.line()).result, 'ready');
      const segment = await say('name');
      assert.ok(segment.startsWith(`${right.address}:`), segment);
      for (const size of [1000, 3 * 2 ** 20]) {
        assert.is(await say('put', `stock/${size}`, 7, size, node), 0);
        assert.is(await say('get', `stock/${size}`, 7, size), 'right');
      }
      const ours = left.start(process.execPath, [child, master, left.address, '0']);
      await ours.line();
      assert.equal((await ask(ours, { put: ['ours'], preferred: [segment] })).wrong, []);
      assert.is(await say('get', 'ours/3', 'ours'.length + 3, 3 * 2 ** 20), 'right');
    }),
  );
}

test.run();
