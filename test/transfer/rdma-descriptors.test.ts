// Descriptors and handshakes of RDMA as stock engines write them (texts of the wheel 0.3.13.post1), where no NIC is needed.
import { createServer, type Server } from 'node:net';
import { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { create, PLANES, talk } from '../support/engines.js';
import { rejects } from './support.js';

const DESCRIPTOR = {
  buffers: [{ addr: 140594651316224, length: 4194304, lkey: [559], name: 'cpu:0', rkey: [559] }],
  devices: [{ gid: '00:00:00:00:00:00:00:00:00:00:ff:ff:0a:4d:00:02', lid: 0, name: 'rxe1' }],
  name: '127.0.0.1:16745',
  priority_matrix: { 'cpu:0': [[], ['rxe1']] },
  protocol: 'rdma',
  tcp_data_port: 0,
  tcp_proto_version: 1,
  timestamp: '2026-11-23 14:27:23.507926',
};

function frame(type: number, text: string): Buffer {
  const body = Buffer.concat([Buffer.of(type), Buffer.from(text)]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(body.length));
  return Buffer.concat([length, body]);
}

/** A port that answers every handshake with a descriptor. */
async function served(descriptor: object, work: (name: string) => Promise<unknown>): Promise<void> {
  const server: Server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => socket.end(frame(1, JSON.stringify(descriptor))));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await work(`127.0.0.1:${(server.address() as { port: number }).port}`);
  } finally {
    server.close();
  }
}

for (const plane of PLANES) {
  test(`${plane.name}: a peer that speaks RDMA alone is refused where there is no NIC; bad NICs and keys are named`, async () => {
    const engine = await create(plane, { transports: ['tcp'] });
    try {
      await served(DESCRIPTOR, (name) => rejects(engine.open(name), 'ERR_NOT_SUPPORTED'));
      const wrong = [
        { devices: [{ ...DESCRIPTOR.devices[0], gid: 'garbage' }] },
        { devices: [{ ...DESCRIPTOR.devices[0], name: 'a,b' }] },
        { devices: [{ ...DESCRIPTOR.devices[0], lid: 70_000 }] },
        { devices: 7 },
        { buffers: [{ ...DESCRIPTOR.buffers[0], rkey: ['x'] }] },
        { buffers: [{ ...DESCRIPTOR.buffers[0], rkey: [-1] }] },
      ];
      for (const part of wrong) {
        await served({ ...DESCRIPTOR, ...part }, (name) => rejects(engine.open(name), 'ERR_PROTOCOL'));
      }
    } finally {
      await engine.close();
    }
  });

  test(`${plane.name}: a NIC that asks for a connection where there is none is refused in stock's words`, async () => {
    const engine = await create(plane, { transports: ['tcp'] });
    try {
      const request = {
        local_nic_path: '127.0.0.1:1@rxe0',
        peer_nic_path: `${engine.name}@rxe1`,
        qp_num: [17, 18],
        ready_ack: false,
      };
      const answer = await talk(engine.name, frame(0, JSON.stringify(request)));
      const { reply_msg: why, qp_num: numbers } = JSON.parse(answer.subarray(9).toString());
      assert.match(why, /no RDMA/);
      assert.equal(numbers, []);
    } finally {
      await engine.close();
    }
  });
}

test('options that ask for NICs which are not there are refused, and what is no option too', async () => {
  await rejects(TransferEngine.create({ rdma: { devices: 'no-such-nic' } }), 'ERR_NOT_SUPPORTED');
  await rejects(TransferEngine.create({ rdma: { devices: 'a b;c' } }), 'ERR_INVALID_ARGUMENT');
  await rejects(TransferEngine.create({ rdma: { links: 'fastest' as 'predicted' } }), 'ERR_INVALID_ARGUMENT');
  await rejects(TransferEngine.create({ rdma: { gidIndex: 256 } }), 'ERR_INVALID_ARGUMENT');
  await rejects(TransferEngine.create({ protocol: 'udp' as never }), 'ERR_INVALID_ARGUMENT');
});

test.run();
