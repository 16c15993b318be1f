/** `mooncake-ts store`: a store node, under the flags of the stock store service. */
import type { Command } from 'commander';
import { errors, MooncakeError } from '../core/errors.js';
import { RpcClient } from '../rpc/client.js';
import { StoreNode } from '../store/node/node.js';
import { formatSize } from '../store/size.js';
import { parseName } from '../transfer/metadata/name.js';
import { interruptible } from './interrupt.js';
import { printable } from './printable.js';
import { nodeOptions, SETTING_FLAGS, type StoreFlags } from './store-flags.js';
import { port, whole } from './values.js';

interface Typed extends StoreFlags {
  readonly grace: number;
  readonly maxWaitTime: number;
  readonly json?: true;
}

/** A master that does not take a connection in this time is asked again. */
const ASK_MS = 1000;

export function addStore(program: Command): void {
  const command = program
    .command('store')
    .summary('a store node: lends memory to a Mooncake cluster, with a REST API')
    .description(
      "Joins a Mooncake cluster (a stock master or `mooncake-ts master`), lends memory to it, and serves the stock store service's " +
        'REST API. What is not given here is taken from the configuration file (--config, or MOONCAKE_CONFIG_PATH; JSON or YAML), ' +
        'or without one from MOONCAKE_MASTER and its kin.',
    )
    .option('--config <file>', 'configuration file, JSON or YAML')
    .option('-D, --define <name=value>', 'a setting of the configuration file', (one, all: string[] = []) => [
      ...all,
      one,
    ])
    .option('--port <n>', 'port of the REST API, 0 for any', port('--port'), 8080)
    .option('--http_host <address>', 'address of the REST API; stock listens on 0.0.0.0', '127.0.0.1')
    .option('--bind <address>', 'address on which peers are listened for (default: --host)')
    .option('--admin <host:port>', "the master's HTTP port, for figures of the cluster")
    .option('--serve [host:port]', 'let processes of this host attach and share its memory (a free port of 127.0.0.1)')
    .option('--grace <seconds>', 'how long what is here stays readable after a stop', whole('--grace', 0, 3600), 0)
    .option('--max-wait-time <seconds>', 'how long to wait for the master', whole('--max-wait-time', 0, 86_400), 60)
    .option('--json', 'the addresses as one JSON line');
  for (const { flag, help, hidden } of SETTING_FLAGS) {
    const option = command.createOption(`--${flag} <value>`, help);
    command.addOption(hidden ? option.hideHelp() : option);
  }
  command.addOption(command.createOption('--threads <n>', 'accepted, without effect').hideHelp());
  command.action((typed: Typed) => interruptible((signal) => serve(typed, signal)));
}

async function serve(typed: Typed, signal: AbortSignal): Promise<void> {
  const options = await nodeOptions(typed);
  await masterAnswers(options.master, typed.maxWaitTime * 1000, signal);
  const node = await StoreNode.start(options);
  try {
    const { name, master, segments } = node.status();
    const bytes = segments.reduce((total, segment) => total + segment.bytes, 0);
    const text =
      `store node ${name}: lends ${formatSize(bytes)} through the master at ${master}, REST API on ${node.url}\n` +
      `check it with: curl ${node.url}/health`;
    const attach = node.door === undefined ? '' : `\nattach with: MooncakeStore.attach({ node: '${node.door}' })`;
    const line = { url: node.url, name, master, bytes, attach: node.door };
    process.stdout.write(
      `${typed.json ? JSON.stringify(line) : `${text}${attach}`.split('\n').map(printable).join('\n')}\n`,
    );
    const watching = watchMaster(node);
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
    clearInterval(watching);
    await leave(node, typed.grace);
  } finally {
    await node.close();
  }
}

/** Says when the master is lost and when it is back: until then the node's memory serves nobody new. */
function watchMaster(node: StoreNode): NodeJS.Timeout {
  let wasConnected = true;
  return setInterval(() => {
    const { isConnected, master } = node.status();
    if (isConnected === wasConnected) return;
    wasConnected = isConnected;
    const text = isConnected ? 'answers again' : 'cannot be reached; trying again until it can';
    process.stderr.write(`${new Date().toISOString()} the master at ${printable(master)} ${text}\n`);
  }, ASK_MS);
}

/** With a grace; a second signal ends it. */
async function leave(node: StoreNode, seconds: number): Promise<void> {
  if (seconds === 0) return;
  process.stderr.write(`leaving: nothing new is placed here; ends in ${seconds} s, or at the next signal\n`);
  const again = new AbortController();
  const stop = () => again.abort();
  process.once('SIGINT', stop).once('SIGTERM', stop);
  try {
    await node.drain(seconds * 1000, again.signal);
  } catch (error) {
    // A master that is gone has nothing to give back to.
    process.stderr.write(`leaving at once: ${printable((error as Error).message)}\n`);
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop);
  }
}

/** Waits for the master, as a node is often started with it. Throws ERR_PEER, ERR_ABORTED. */
async function masterAnswers(master: string, waitMs: number, signal: AbortSignal): Promise<void> {
  const { host, port } = parseName('master_server_address', master);
  const until = performance.now() + waitMs;
  for (let attempt = 1; ; attempt++) {
    if (signal.aborted) throw errors.aborted(signal.reason);
    try {
      (await RpcClient.connect(host, port, { timeoutMs: ASK_MS })).close();
      return;
    } catch (error) {
      if (!(error instanceof MooncakeError)) throw error;
      const left = until - performance.now();
      if (left <= 0) {
        const why = `no master answers there (${error.message}); start one with \`mooncake-ts master\`, or name it with --master_server_address`;
        throw errors.peer(master, why, error);
      }
      if (attempt === 1) process.stderr.write(`waiting for the master at ${printable(master)} …\n`);
      await pause(Math.min(ASK_MS, left), signal);
    }
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
    signal.addEventListener('abort', done, { once: true });
  });
}
