/**
 * A service that answers as one does until the file `SOCKET.go` is there; then it says why it ends the connection, ends it, and makes
 * `SOCKET.gone`.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { Packr } from 'msgpackr';

const [path] = process.argv.slice(2);
const packr = new Packr({ useRecords: false });
const ANSWERS: Record<string, object> = {
  hello: { instance: 'i', version: '0', descriptors: null },
  'scheduler.attach': { session: 1, generation: 1 },
};

function frame(value: unknown): Buffer {
  const packed = packr.pack(value);
  const header = Buffer.alloc(4);
  header.writeUInt32LE(packed.length);
  return Buffer.concat([header, packed]);
}

const server = createServer((socket) => {
  let bytes = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    bytes = Buffer.concat([bytes, chunk]);
    for (; bytes.length >= 4 && bytes.length >= 4 + bytes.readUInt32LE(0); ) {
      const end = 4 + bytes.readUInt32LE(0);
      const [id, op] = packr.unpack(bytes.subarray(4, end));
      bytes = bytes.subarray(end);
      if (ANSWERS[op]) socket.write(frame([id, null, ANSWERS[op]]));
    }
  });
  socket.on('error', () => {});
  const look = setInterval(() => {
    if (!existsSync(`${path}.go`)) return;
    clearInterval(look);
    socket.write(frame([0, { code: 'ERR_ENGINE', message: 'it has another KV cache now' }, null]));
    socket.destroy();
    socket.once('close', () => writeFileSync(`${path}.gone`, ''));
    server.close();
  }, 5);
});
server.listen(path, () => process.stdout.write('listening'));
