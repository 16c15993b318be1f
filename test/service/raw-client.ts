/** The protocol by hand, so that tests can say what no client of ours says. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { Packr } from 'msgpackr';

const packr = new Packr({ useRecords: false, int64AsType: 'number' });

export interface Answer {
  id: number;
  error: { code: string; message: string } | null;
  // biome-ignore lint/suspicious/noExplicitAny: tests look at what they expect.
  result: any;
}

export const ENGINE = {
  engineId: 'engine',
  model: 'model',
  role: 'both',
  hash: { algorithm: 'sha256_cbor', blockSize: 4, seed: '0' },
  tensorParallelSize: 1,
};
export const STORE = { kind: 'store', integrity: 'strict', loadAsync: true };

export class RawClient {
  readonly socket: Socket;
  /** Resolves when the service has closed its end. */
  readonly ended: Promise<unknown>;
  readonly answers: Answer[] = [];
  #bytes = Buffer.alloc(0);
  #last = 0;
  #wake: (() => void)[] = [];
  #over = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.ended = Promise.race([once(socket, 'end'), once(socket, 'close')]).then(() => {
      this.#over = true;
      for (const wake of this.#wake.splice(0)) wake();
    });
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      while (this.#bytes.length >= 4 && this.#bytes.length >= 4 + this.#bytes.readUInt32LE(0)) {
        const length = this.#bytes.readUInt32LE(0);
        const [id, error, result] = packr.unpack(this.#bytes.subarray(4, 4 + length));
        this.answers.push({ id, error, result });
        this.#bytes = this.#bytes.subarray(4 + length);
      }
      for (const wake of this.#wake.splice(0)) wake();
    });
  }

  static async connect(path: string): Promise<RawClient> {
    const socket = connect({ path, allowHalfOpen: true });
    await once(socket, 'connect');
    return new RawClient(socket);
  }

  /** Connected and greeted. */
  static async open(path: string): Promise<RawClient> {
    const client = await RawClient.connect(path);
    await client.ok('hello', { protocol: 1, client: 'test/1', pid: process.pid });
    return client;
  }

  write(value: unknown): void {
    const packed = packr.pack(value);
    const header = Buffer.alloc(4);
    header.writeUInt32LE(packed.length);
    this.socket.write(Buffer.concat([header, packed]));
  }

  send(op: string, args: object): void {
    this.write([0, op, args]);
  }

  async call(op: string, args: object): Promise<Answer> {
    const id = ++this.#last;
    this.write([id, op, args]);
    return this.answer(id);
  }

  /** The answer to a call, which may come with others. */
  async answer(id: number): Promise<Answer> {
    for (;;) {
      const at = this.answers.findIndex((answer) => answer.id === id);
      if (at >= 0) return this.answers.splice(at, 1)[0];
      if (this.#over) throw new Error(`the service ended the connection before it answered ${id}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  // biome-ignore lint/suspicious/noExplicitAny: as in Answer.
  async ok(op: string, args: object): Promise<any> {
    const { error, result } = await this.call(op, args);
    if (error) throw new Error(`${op}: ${error.code} ${error.message}`);
    return result;
  }

  /** The error that a call is answered with. */
  async refused(op: string, args: object): Promise<{ code: string; message: string }> {
    const { error } = await this.call(op, args);
    if (error === null) throw new Error(`${op} was not refused`);
    return error;
  }

  close(): void {
    this.socket.destroy();
  }
}
