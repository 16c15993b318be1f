/** The process of one instance (process.ts): attaches to the store, takes requests, ends when its parent does. */
import { errors } from '../core/errors.js';
import { MooncakeStore } from '../store/store.js';
import { TcpTransfer } from '../transfer/tcp/transfer.js';
import type { Instance } from './instance.js';
import { ALIVE_EVERY, type FromInstance, type ToInstance, toWire } from './messages.js';
import { startReference } from './reference.js';

let instance: Instance | undefined;
let close: () => Promise<void> = async () => {};
const running = new Map<number, AbortController>();

const say = (message: FromInstance) => process.send?.(message, undefined, undefined, () => {});

process.on('message', async (message: ToInstance) => {
  switch (message.type) {
    case 'start':
      try {
        const transfer = await TcpTransfer.listen();
        const store = await MooncakeStore.attach({ transfer, address: message.store });
        instance = await startReference(message.options, transfer, store);
        close = async () => {
          await instance?.close();
          await store.close();
          await transfer.close();
        };
        say({ type: 'started', reached: instance.reached });
      } catch (error) {
        say({ type: 'failed', error: toWire(error) });
      }
      break;
    case 'generate':
      await answer(message.call, (started, signal) =>
        started.generate(message.request, {
          signal,
          onToken: (token, text) => say({ type: 'token', call: message.call, token, text }),
        }),
      );
      break;
    case 'abort':
      running.get(message.call)?.abort();
      break;
    case 'stats':
      await answer(message.call, (started) => started.stats());
      break;
    case 'close':
      await close().catch((error) => process.stderr.write(`mooncake-ts: closing: ${error.message}\n`));
      if (process.connected) process.disconnect();
      break;
  }
});

type Answer = Extract<FromInstance, { type: 'answer' }>['value'];

async function answer(call: number, work: (instance: Instance, signal: AbortSignal) => Promise<Answer>): Promise<void> {
  const controller = new AbortController();
  running.set(call, controller);
  try {
    if (!instance) throw errors.closed('the instance');
    say({ type: 'answer', call, value: await work(instance, controller.signal) });
  } catch (error) {
    say({ type: 'refusal', call, error: toWire(error) });
  } finally {
    running.delete(call);
  }
}

// Ctrl-C reaches the whole process group; the parent decides when to stop.
process.on('SIGINT', () => {});
setInterval(() => say({ type: 'alive' }), ALIVE_EVERY).unref();
process.on('disconnect', () => process.exit(0));
