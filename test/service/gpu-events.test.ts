/**
 * Order between an engine's (simulated) GPU and the service, by events: nothing is saved before it is written, nothing loaded over
 * what is still read. The engine is the test itself, on the wire; each scenario is run without its event as well, which shows that
 * the wait is what makes it hold.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { gpuTest } from '../support/gpu.js';
import { deviceOf, GpuEvent, gpuMemory } from '../support/gpu-cache.js';
import { ENGINE, RawClient, STORE } from './raw-client.js';
import { ServiceProcess } from './service-process.js';

const TOKENS = 16;
const BLOCK = 64 * ENGINE.hash.blockSize;
const BLOCKS = 16;
/** Of a request's; what it loads goes into those of the other. */
const [FIRST, SECOND] = [
  [0, 1, 2, 3],
  [8, 9, 10, 11],
];
const LENGTH = 1 << 16;
const LAYOUT = {
  segments: [{ id: 0, length: LENGTH }],
  groups: [
    {
      kind: 'mla',
      layers: [0],
      blockSize: ENGINE.hash.blockSize,
      blocks: BLOCKS,
      tensors: {
        latent: {
          dtype: 'uint8',
          elements: 64,
          strides: { block: BLOCK, token: 64, head: null },
          at: [{ segment: 0, offset: 0 }],
        },
      },
    },
  ],
  tensorParallel: { rank: 0, size: 1 },
};
const [STEP, LAYER] = [0, 1];

let service: ServiceProcess;
let engines = 0;

const pause = () => new Promise((resolve) => setTimeout(resolve, 250));

type Found = { engineId: string };

/** An engine on the wire: both halves, one layer on a GPU, an event of the step and one of the layer. */
class Engine {
  readonly memory = gpuMemory(LENGTH);
  readonly events = [new GpuEvent(), new GpuEvent()];
  readonly client: RawClient;
  readonly id = `engine-${++engines}`;
  #scheduler = 0;
  #worker = 0;
  #requests = 0;

  private constructor(client: RawClient) {
    this.client = client;
  }

  static async attach(events: object | undefined = undefined): Promise<Engine> {
    const made = new Engine(await RawClient.open(service.socket));
    const { client, memory } = made;
    const attach = { engine: { ...ENGINE, engineId: made.id, model: made.id }, connector: STORE };
    made.#scheduler = (await client.ok('scheduler.attach', attach)).session;
    made.#worker = (await client.ok('worker.attach', { ...attach, rank: 0 })).session;
    await client.ok('worker.register', {
      session: made.#worker,
      memories: [{ kind: 'cuda-ipc', ...deviceOf(memory, 'ipc') }],
      layout: LAYOUT,
      events: events ?? { device: 'cuda:0', handles: made.events.map(({ handle }) => handle) },
    });
    return made;
  }

  fill(blocks: readonly number[], value: number): void {
    for (const block of blocks) this.memory.fill(value, block * BLOCK, (block + 1) * BLOCK);
  }

  holds(blocks: readonly number[], value: number): boolean {
    return blocks.every((block) =>
      this.memory.subarray(block * BLOCK, (block + 1) * BLOCK).every((byte) => byte === value),
    );
  }

  /** The step of a request for the prompt of that number; what the worker half is to be told of it. `saved`: it is found, soon. */
  async schedule(prompt: number, blocks: readonly number[], saved: boolean): Promise<unknown> {
    const session = this.#scheduler;
    let [id, found] = await this.#request(prompt);
    for (const deadline = Date.now() + 30_000; saved && found < TOKENS && Date.now() < deadline; ) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      [id, found] = await this.#request(prompt);
    }
    assert.is(found, saved ? TOKENS : 0);
    this.client.send('scheduler.allocated', { session, id, blocks: [[...blocks, 15]], external: found });
    const entry = { id, blocks: [[...blocks, 15]], computed: found, resumed: false };
    const { meta } = await this.client.ok('scheduler.step', {
      session,
      new: saved ? [] : [entry],
      cached: [],
      scheduled: saved ? {} : { [id]: TOKENS + 1 },
      finished: [],
      preempted: [],
    });
    return meta;
  }

  /** Announces one, and what is found of it. */
  async #request(prompt: number): Promise<[id: string, found: number]> {
    const session = this.#scheduler;
    const id = `request-${++this.#requests}`;
    const tokens = Buffer.from(Uint32Array.from({ length: TOKENS + 1 }, (_, i) => 1000 * prompt + i).buffer);
    this.client.send('scheduler.request', { session, id, prompt: TOKENS + 1, tokens });
    let found = null;
    while (found === null)
      [found] = await this.client.ok('scheduler.matched', { session, id, computed: 0, append: null });
    return [id, found];
  }

  step(meta: unknown, after?: number) {
    return this.client.ok('worker.step', {
      session: this.#worker,
      meta,
      preempted: [],
      ...(after !== undefined && { after }),
    });
  }

  layerSaved(after?: number): void {
    this.client.send('worker.layerSaved', { session: this.#worker, layer: 0, ...(after !== undefined && { after }) });
  }

  /** Resolves with what the memory had when the step's blocks might be changed. */
  saved(): Promise<unknown> {
    return this.client.ok('worker.saved', { session: this.#worker });
  }

  refused(op: string, args: object) {
    return this.client.refused(op, { session: this.#worker, ...args });
  }

  /** Saves what FIRST's blocks hold, as one step. */
  async save(prompt: number): Promise<void> {
    await this.step(await this.schedule(prompt, FIRST, false));
    this.layerSaved();
    await this.saved();
  }

  async loaded(): Promise<void> {
    for (;;) {
      const { receiving } = await this.client.ok('worker.finished', { session: this.#worker, finished: [] });
      if (receiving.length > 0) return;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

test.before(async () => {
  service = await ServiceProcess.start();
});

gpuTest(
  test,
  'a layer is saved when the event behind it is over',
  async () => {
    for (const [prompt, after] of [
      [1, LAYER],
      // The control: the service reads what was there before the kernel has written.
      [2, undefined],
    ] as const) {
      const engine = await Engine.attach();
      engine.fill(FIRST, 0x11);
      engine.events[LAYER].record();
      const meta = await engine.schedule(prompt, FIRST, false);
      assert.equal(await engine.step(meta), { loads: false, saves: true });
      engine.layerSaved(after);
      let answered = false;
      const saved = engine.saved().then(() => {
        answered = true;
      });
      await (after === undefined ? saved : pause());
      assert.is(answered, after === undefined);
      // A save goes on behind the answer: the kernel of the control writes when it has been read.
      const early = after === undefined ? await engine.schedule(prompt, SECOND, true) : undefined;
      engine.fill(FIRST, 0x22);
      engine.events[LAYER].over();
      await saved;
      await engine.step(early ?? (await engine.schedule(prompt, SECOND, true)));
      await engine.loaded();
      assert.ok(engine.holds(SECOND, after === undefined ? 0x11 : 0x22));
      engine.client.close();
    }
  },
  true,
);

gpuTest(
  test,
  'a load begins when the event before it is over',
  async () => {
    for (const after of [STEP, undefined]) {
      const engine = await Engine.attach();
      engine.fill(FIRST, 0x33);
      await engine.save(3);
      engine.fill(SECOND, 0x44);
      engine.events[STEP].record();
      const meta = await engine.schedule(3, SECOND, true);
      // The engine goes on at once: the service waits.
      assert.equal(await engine.step(meta, after), { loads: false, saves: false });
      if (after === undefined) {
        await engine.loaded();
        assert.ok(engine.holds(SECOND, 0x33), 'the control: nobody waits for the event');
      } else {
        await pause();
        assert.ok(engine.holds(SECOND, 0x44), 'what the event is of may still read it');
        engine.events[STEP].over();
        await engine.loaded();
        assert.ok(engine.holds(SECOND, 0x33));
      }
      engine.client.close();
    }
  },
  true,
);

gpuTest(
  test,
  'an engine that goes while the service waits for it is let go',
  async () => {
    const engine = await Engine.attach();
    engine.fill(FIRST, 0x55);
    await engine.save(5);
    engine.events[STEP].record();
    const meta = await engine.schedule(5, SECOND, true);
    await engine.step(meta, STEP);
    engine.client.close();
    const other = await RawClient.open(service.socket);
    const there = async () => (await other.ok('status', {})).engines.some((one: Found) => one.engineId === engine.id);
    // Far below the time after which a wait for an event is given up.
    const deadline = Date.now() + 30_000;
    while ((await there()) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.not(await there());
    other.close();
  },
  true,
);

gpuTest(
  test,
  'events that are none are refused by name',
  async () => {
    const handle = new GpuEvent().handle;
    for (const [events, pattern] of [
      [{ device: 'cuda:0', handles: [handle, new Uint8Array(64)] }, /cuIpcOpenEventHandle/],
      [{ device: 'cuda:9', handles: [handle] }, /cuda:9/],
      [{ device: 'cuda:0', handles: [new Uint8Array(3)] }, /events\.handles\[0\].*64 bytes/],
      [{ device: 'cuda:0', handles: 'none' }, /events\.handles/],
    ] as const) {
      try {
        await Engine.attach(events);
        assert.unreachable('it was taken');
      } catch (error) {
        assert.match((error as Error).message, /ERR_INVALID_ARGUMENT/);
        assert.match((error as Error).message, pattern);
      }
    }
    const engine = await Engine.attach();
    for (const after of [2, -1, 'one']) {
      const error = await engine.refused('worker.step', { meta: null, preempted: [], after });
      assert.is(error.code, 'ERR_INVALID_ARGUMENT');
      assert.match(error.message, /after/);
    }
    engine.client.close();
  },
  true,
);

test.after(() => service.close());
test.run();
