/** A scheduler half in a process of its own: the answers of a service to a prompt that no socket's buffer holds, as JSON. */
import { ServiceConnector } from 'mooncake-ts';

const [socket] = process.argv.slice(2);
const TOKENS = 3_000_000;
const connector = new ServiceConnector({ socket, connector: { kind: 'store' }, timeoutMs: 60_000 });
const engine = { engineId: `child-${process.pid}`, model: 'm', role: 'both', hash: { blockSize: 16 } } as const;
const scheduler = connector.createScheduler(engine);
const request = { requestId: 'long', numPromptTokens: TOKENS, tokens: new Uint32Array(TOKENS).fill(7) };
const nothing = { newRequests: [], cachedRequests: [], finishedRequestIds: [], preemptedRequestIds: [] };

// What was posted goes out when the turn ends, too; before anything else of the next turn.
scheduler.onNewRequest(request);
await new Promise((resolve) => setImmediate(resolve));
let matched = scheduler.getNumNewMatchedTokens(request, 0);
while (matched[0] === null) {
  await new Promise((resolve) => setTimeout(resolve, 5));
  matched = scheduler.getNumNewMatchedTokens(request, 0);
}
const { meta, lost } = scheduler.buildConnectorMeta({ ...nothing, numScheduledTokens: {} }) as Record<string, unknown>;
const finished = scheduler.requestFinished(request, [[]]);
const stats = Object.keys(scheduler.stats()).length > 0;
// Nobody waits within a turn for this one.
scheduler.onNewRequest({ ...request, requestId: 'last' });
await scheduler.shutdown();
process.stdout.write(JSON.stringify({ matched, meta, lost, finished, stats }));
