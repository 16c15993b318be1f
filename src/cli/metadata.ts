/** `mooncake-ts metadata`: the HTTP metadata server by which transfer engines find each other. */
import type { Command } from 'commander';
import { MetadataServer } from '../transfer/metadata/server.js';
import { interruptible } from './interrupt.js';
import { port, whole } from './values.js';

interface Options {
  host: string;
  port: number;
  maxKeys: number;
  json?: true;
}

export function addMetadata(program: Command): void {
  program
    .command('metadata')
    .summary('the HTTP metadata server for transfer engines')
    .description(
      'Serves the metadata by which Mooncake transfer engines find each other, these and stock ones: GET, PUT and DELETE ' +
        '/metadata?key=…, and GET /health. What is stored is kept in memory, until the engines take it back or this ends.',
    )
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <n>', 'port, 0 for any', port('--port'), 8080)
    .option('--max-keys <n>', 'keys stored at most, two an engine', whole('--max-keys', 1, 2 ** 24), 65_536)
    .option('--json', 'the address as one JSON line')
    .action((options: Options) => interruptible((signal) => serve(options, signal)));
}

async function serve({ json, ...place }: Options, signal: AbortSignal): Promise<void> {
  const server = await MetadataServer.listen(place);
  const { url } = server;
  process.stdout.write(json ? `${JSON.stringify({ url })}\n` : `metadata server for transfer engines: ${url}\n`);
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await server.close();
}
