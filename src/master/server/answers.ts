/**
 * Answers about copies, written from what the service says straight into the message: with an object for each copy, and a
 * bigint for each number in it, they would cost more than the look-up. On the wire they are what the schema says.
 */
import { METHODS, replica } from '../../rpc/schemas/v0_3_13.js';
import type { Measure, Type, Writer } from '../../rpc/types.js';
import type { DiskReplica, ObjectInfo, Outcome, Replica } from '../api.js';
import { type Bases, diskToWire, STATE } from './replicas.js';

/** Bytes of a copy beside its two texts: id, kind, size, address, state. */
const REPLICA_BYTES = 8 + 1 + 8 + 8 + 4;
const MEMORY = 0;
/** Texts of endpoints and protocols that are remembered as bytes. */
const MAX_TEXTS = 4096;

const texts = new Map<string, Buffer>();

function utf8(text: string): Buffer {
  let bytes = texts.get(text);
  if (bytes) return bytes;
  if (texts.size >= MAX_TEXTS) texts.clear();
  bytes = Buffer.from(text);
  texts.set(text, bytes);
  return bytes;
}

/** A whole number from 0 to 2^53 - 1 as u64. */
function u64({ view, at }: Writer, value: number): number {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, value / 2 ** 32, true);
  return 8;
}

function measureReplicas(replicas: readonly Replica[], into: Measure, disk?: DiskReplica): void {
  into.lengths += 1 + 2 * replicas.length;
  into.largest = Math.max(into.largest, replicas.length + 1);
  if (disk) replica.measure(diskToWire(disk), into);
  for (const { protocol, endpoint } of replicas) {
    const [first, second] = [utf8(protocol).length, utf8(endpoint).length];
    into.bytes += REPLICA_BYTES + first + second;
    into.largest = Math.max(into.largest, first, second);
  }
}

function writeText(text: string, writer: Writer): void {
  const bytes = utf8(text);
  writer.length(bytes.length);
  writer.bytes.set(bytes, writer.at);
  writer.at += bytes.length;
}

function writeReplicas(bases: Bases, replicas: readonly Replica[], writer: Writer, disk?: DiskReplica): void {
  writer.length(replicas.length + (disk ? 1 : 0));
  for (const one of replicas) {
    writer.at += u64(writer, one.id);
    writer.bytes[writer.at++] = MEMORY;
    writer.at += u64(writer, one.size);
    writer.at += u64(writer, (bases.get(one.segment) ?? 0) + one.offset);
    writeText(one.protocol, writer);
    writeText(one.endpoint, writer);
    writer.view.setInt32(writer.at, STATE[one.state], true);
    writer.at += 4;
  }
  if (disk) replica.write(diskToWire(disk), writer);
}

interface Written<T> {
  measure(value: T, into: Measure): void;
  write(value: T, writer: Writer): void;
}

function unread(): never {
  throw new Error('an answer is written here, and read by clients with the schema');
}

/** expected<T, ErrorCode> of an outcome, for a server: nobody here reads it. */
function outcome<T>(schema: { literal: Uint8Array }, item: Written<T>): Type<Outcome<T>> {
  return {
    literal: schema.literal,
    least: 1,
    measure(one, into) {
      into.bytes += one.ok ? 1 : 5;
      if (one.ok) item.measure(one.value, into);
    },
    write(one, writer) {
      writer.bytes[writer.at++] = one.ok ? 1 : 0;
      if (one.ok) {
        item.write(one.value, writer);
      } else {
        writer.view.setInt32(writer.at, one.status, true);
        writer.at += 4;
      }
    },
    read: unread,
  };
}

/** A vector of them. */
function outcomes<T>(schema: { literal: Uint8Array }, item: Written<T>): Type<readonly Outcome<T>[]> {
  const each = outcome(schema, item);
  return {
    literal: schema.literal,
    least: 1,
    measure(value, into) {
      into.lengths++;
      into.largest = Math.max(into.largest, value.length);
      for (const one of value) each.measure(one, into);
    },
    write(value, writer) {
      writer.length(value.length);
      for (const one of value) each.write(one, writer);
    },
    read: unread,
  };
}

/** The methods whose answers these are, to be handled with outcomes of the service. */
export function answerMethods(bases: Bases) {
  const started: Written<Replica[]> = {
    measure: (replicas, into) => measureReplicas(replicas, into),
    write: (replicas, writer) => writeReplicas(bases, replicas, writer),
  };
  const found: Written<ObjectInfo> = {
    measure({ replicas, disk, checksum }, into) {
      measureReplicas(replicas, into, disk);
      into.bytes += checksum === undefined ? 9 : 17;
    },
    write({ replicas, disk, leaseMs, checksum }, writer) {
      writeReplicas(bases, replicas, writer, disk);
      writer.at += u64(writer, Math.ceil(leaseMs));
      writer.bytes[writer.at++] = checksum === undefined ? 0 : 1;
      if (checksum === undefined) return;
      writer.view.setBigUint64(writer.at, checksum, true);
      writer.at += 8;
    },
  };
  const { PutStart, UpsertStart, GetReplicaList, BatchPutStart, BatchUpsertStart, BatchGetReplicaList } = METHODS;
  return {
    PutStart: { ...PutStart, result: outcome(PutStart.result, started) },
    UpsertStart: { ...UpsertStart, result: outcome(UpsertStart.result, started) },
    GetReplicaList: { ...GetReplicaList, result: outcome(GetReplicaList.result, found) },
    BatchPutStart: { ...BatchPutStart, result: outcomes(BatchPutStart.result, started) },
    BatchUpsertStart: { ...BatchUpsertStart, result: outcomes(BatchUpsertStart.result, started) },
    BatchGetReplicaList: { ...BatchGetReplicaList, result: outcomes(BatchGetReplicaList.result, found) },
  };
}
