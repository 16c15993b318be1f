/** `mooncake-ts master`: the networked master, under the stock master's flags. */
import type { Command } from 'commander';
import { type MasterEvent, MooncakeMaster } from '../master/server/master.js';
import { EventLog, LEVELS, type Level } from './event-log.js';
import { interruptible } from './interrupt.js';
import { inForce, optionsOf, type Setting, settingsOf } from './master-config.js';
import { FLAGS } from './master-flags.js';
import { printable } from './printable.js';

type Typed = Record<string, string | true | undefined> & {
  json?: true;
  logLevel?: string;
  printConfig?: true;
  stockDefaults?: true;
};

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
    .option('--data-dir [folder]', 'folder in which objects outlive the master (none: it begins empty)')
    .option('--log-level <level>', `the least urgent events that are written: ${LEVELS.join(', ')}`, 'info')
    .option('--json', 'events as JSON lines');
  for (const { name, help, hidden } of FLAGS) {
    const option = command.createOption(`--${name} [value]`, help);
    command.addOption(hidden ? option.hideHelp() : option);
  }
  command.action((typed: Typed) => interruptible((signal) => serve(typed, signal)));
}

async function serve(
  { json, logLevel, printConfig, stockDefaults, ...typed }: Typed,
  signal: AbortSignal,
): Promise<void> {
  const log = new EventLog({ json, level: logLevel });
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
    onEvent: (event) => log.event(LEVEL_OF[event.what] ?? 'info', event, describe(event)),
  });
  const { rpc, admin, metadata } = master.ports;
  const host = options.host ?? '127.0.0.1';
  const listening = { what: 'listening', host, ports: master.ports };
  log.say(
    listening,
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
  log.close();
}

/** Of events that a person should look at; the others are information. */
const LEVEL_OF: Readonly<Record<string, Level>> = {
  'log-recovered': 'warn',
  'client-lost': 'warn',
  'segment-refused': 'warn',
  'segment-replaced': 'warn',
  'request-refused': 'warn',
  'snapshot-failed': 'warn',
  'log-failing': 'error',
  'data-damaged': 'error',
};

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
    case 'segment-restored':
      return `segment ${event.segment} of client ${event.client} is back, with what it held before the restart`;
    case 'data-restored':
      return (
        `restored ${event.objects} objects in ${event.segments} segments from ${event.bytes} bytes in ` +
        `${(event.ms / 1000).toFixed(1)} s; they are offered when their clients are back` +
        (event.dropped > 0 ? `; ${event.dropped} found no place` : '')
      );
    case 'data-damaged':
      return (
        `damaged data: ${event.why}. ${event.lost ? 'Nothing of it can be used: the cache begins empty' : 'An older snapshot was used'}; ` +
        `the files are in ${event.aside}`
      );
    case 'log-failing':
      return `nothing can be made durable, and writes are refused until it can: ${event.why}`;
    case 'log-recovered':
      return 'state is durable again, and writes are taken';
    case 'snapshot-failed':
      return `a snapshot could not be written, the log goes on: ${event.why}`;
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
