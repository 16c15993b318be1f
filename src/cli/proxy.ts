/** `mooncake-ts proxy`: the XpYd proxy in front of prefill and decode engines. */
import type { Command } from 'commander';
import { oneOf } from '../core/check.js';
import { errors } from '../core/errors.js';
import { MODES, ORDERS } from '../proxy/options.js';
import { XpydProxy } from '../proxy/proxy.js';
import { SCHEDULING } from '../proxy/scheduling.js';
import { interruptible } from './interrupt.js';
import { printable } from './printable.js';
import { type ProxyFlags, proxyOptions } from './proxy-flags.js';
import { port, whole } from './values.js';

interface Typed extends ProxyFlags {
  readonly grace: number;
  readonly json?: true;
}

/** Flags of Mooncake's older proxy. */
const OLDER = ['prefiller-host', 'prefiller-port', 'decoder-host', 'decoder-port'];

export function addProxy(program: Command): void {
  const one = (flag: string, choices: readonly string[]) => (text: string) => oneOf(flag, text, choices);
  const seconds = (flag: string) => (text: string) => {
    const value = /^\d{1,7}(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
    if (value >= 0.01 && value <= 2_000_000) return value;
    throw errors.invalidArgument(flag, text, 'seconds, from 0.01 to 2000000');
  };
  const command = program
    .command('proxy')
    .summary('a proxy in front of prefill and decode engines (XpYd)')
    .description(
      "OpenAI's completions, chat completions and models in front of X prefill and Y decode engines: vLLM with MooncakeConnector, " +
        'MooncakeStoreConnector, or both. Engines come and go by POST /instances/add and /instances/remove (X-API-Key: the ' +
        'variable ADMIN_API_KEY); GET /status, /metrics and /health say how things are.',
    )
    .option('-p, --prefill <url...>', 'prefill engines, each with its bootstrap port behind it or none: URL [port]')
    .option('-d, --decode <url...>', 'decode engines')
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <n>', 'port, 0 for any', port('--port'), 8000)
    .option('--mode <mode>', `how KV comes to decode engines: ${MODES.join(', ')}`, one('--mode', MODES), 'auto')
    .option('--order <order>', `when the decode is sent: ${ORDERS.join(', ')}`, one('--order', ORDERS), 'prefill-first')
    .option(
      '--scheduling <policy>',
      `choice of the engine: ${SCHEDULING.join(', ')}`,
      one('--scheduling', SCHEDULING),
      'round_robin',
    )
    .option('--model <name>', 'the model served; requests for others are refused')
    .option(
      '--when-prefill-fails <way>',
      'compute: the decode engine does it alone; refuse',
      one('--when-prefill-fails', ['compute', 'refuse']),
      'compute',
    )
    .option('--retries <n>', 'tries after the first', whole('--retries', 0, 100), 2)
    .option('--timeout <seconds>', 'a request', seconds('--timeout'), 3600)
    .option('--prefill-timeout <seconds>', 'its prefill', seconds('--prefill-timeout'), 600)
    .option('--idle-timeout <seconds>', 'a pause in its answer', seconds('--idle-timeout'), 120)
    .option('--health-interval <seconds>', 'time between health checks', seconds('--health-interval'), 1)
    .option('--health-timeout <seconds>', 'an engine has for one; two missed: down', seconds('--health-timeout'), 5)
    .option('--max-body <bytes>', 'of a request', whole('--max-body', 1, 2 ** 31), 32 * 2 ** 20)
    .option('--max-requests <n>', 'under way', whole('--max-requests', 1, 1_000_000), 8192)
    .option('--grace <seconds>', 'for requests under way when stopped', seconds('--grace'), 10)
    .option('--config <file>', 'mooncake.json of vLLM V0, translated')
    .option('--json', 'the address as one JSON line');
  for (const name of OLDER) {
    for (const flag of [name, `${name}s`]) command.addOption(command.createOption(`--${flag} <value...>`).hideHelp());
  }
  command.action((typed: Typed) => interruptible((signal) => serve(typed, signal)));
}

async function serve(typed: Typed, signal: AbortSignal): Promise<void> {
  const say = (text: string) => process.stderr.write(`${text.split('\n').map(printable).join('\n')}\n`);
  const options = await proxyOptions(typed, (text) => say(`deprecated: ${text}`));
  const proxy = await XpydProxy.listen({ ...options, log: say });
  try {
    const { url } = proxy;
    const engines = `${options.prefill?.length} prefill and ${options.decode?.length} decode engines`;
    process.stdout.write(typed.json ? `${JSON.stringify({ url })}\n` : `proxy of ${engines}: ${url}\n`);
    if (options.decode?.length === 0)
      say(`requests are answered with 503 until an engine comes by POST ${url}/instances/add`);
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
  } finally {
    await proxy.close(typed.grace * 1000);
  }
}
