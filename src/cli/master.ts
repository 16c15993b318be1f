/** `mooncake-ts master`: the networked master, under the stock master's flags. */
import type { Command } from 'commander';
import { type MasterEvent, MooncakeMaster } from '../master/server/master.js';
import { interruptible } from './interrupt.js';
import { inForce, optionsOf, type Setting, settingsOf } from './master-config.js';
import { FLAGS } from './master-flags.js';
import { printable } from './printable.js';

type Typed = Record<string, string | true | undefined> & { json?: true; printConfig?: true; stockDefaults?: true };

export function addMaster(program: Command): void {
  const command = program
    .command('master')
    .summary('the master of a store cluster, for stock Mooncake clients as well')
    .description(
      'Serves Mooncake\'s RPC: clients of Mooncake 0.3.13 join unchanged. Takes the flags of the stock master, as "--flag value" ' +
        'and "--flag=value"; listens on 127.0.0.1 unless told otherwise.',
    )
    .option('--stock-defaults', 'listen on all addresses, as the stock master does')
    .option('--config_path [file]', 'JSON or YAML with the same names as the flags, which win over it')
    .option('--print-config', 'print what is in force and where it comes from, and end')
    .option('--json', 'events as JSON lines');
  for (const { name, help, hidden } of FLAGS) {
    const option = command.createOption(`--${name} [value]`, help);
    command.addOption(hidden ? option.hideHelp() : option);
  }
  command.action((typed: Typed) => interruptible((signal) => serve(typed, signal)));
}

async function serve({ json, printConfig, stockDefaults, ...typed }: Typed, signal: AbortSignal): Promise<void> {
  const say = (event: object, text: string) =>
    process.stdout.write(json ? `${JSON.stringify({ time: new Date().toISOString(), ...event })}\n` : `${text}\n`);
  const settings = await settingsOf(typed as Record<string, string | true>);
  const options = optionsOf(settings);
  if (printConfig) {
    process.stdout.write(configuration(inForce(settings), json));
    return;
  }
  if (stockDefaults) {
    options.host ??= '0.0.0.0';
    process.stderr.write(
      'warning: listening on all addresses; whoever reaches the port can read and change the cache\n',
    );
  }
  const master = await MooncakeMaster.listen({
    ...options,
    onEvent: (event) => say(event, printable(describe(event))),
  });
  const { rpc, admin, metadata } = master.ports;
  const host = options.host ?? '127.0.0.1';
  say(
    { what: 'listening', host, ports: master.ports },
    [
      `master: RPC on ${host}:${rpc}`,
      ...(admin ? [`metrics and queries on http://${host}:${admin}/metrics`] : []),
      ...(metadata ? [`metadata server on http://${options.metadataHost ?? host}:${metadata}/metadata`] : []),
    ].join(', '),
  );
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await master.close();
}

function configuration(settings: readonly Setting[], json?: true): string {
  const lines = settings.map(({ name, value, from }) =>
    json
      ? JSON.stringify({ name, value, from })
      : `${name.padEnd(34)} ${printable(value).padEnd(20)} ${printable(from)}`.trimEnd(),
  );
  return lines.map((line) => `${line}\n`).join('');
}

function describe(event: MasterEvent): string {
  switch (event.what) {
    case 'client-lost':
      return `client ${event.client} fell silent: what it lent is gone`;
    case 'disk-mounted':
      return `client ${event.client} lends a disk`;
    case 'segment-mounted':
      return `segment ${event.segment}: ${event.bytes} bytes of client ${event.client}`;
    case 'segment-fenced':
      return `segment ${event.segment} of client ${event.client} was lent before this master began: used, empty, after one lease`;
    case 'segment-refused':
      return `segment ${event.segment} of client ${event.client} is refused (${event.status}): ${event.bytes} bytes`;
    case 'segment-replaced':
      return `segment ${event.segment} of client ${event.client} has a new process at its endpoint: what was lent is gone`;
    case 'segment-leaving':
      return `segment ${event.segment} of client ${event.client} is about to go: nothing new is placed there`;
    case 'segment-unmounted':
      return `segment ${event.segment} of client ${event.client} is gone`;
    case 'request-refused':
      return (
        `refused ${event.method} from ${event.remote}: ` +
        (event.expected.length === 0
          ? 'no such method'
          : `type ${event.code ?? 'unreadable'}, expected ${event.expected.join(' or ')}; the client is of another version`)
      );
  }
}
