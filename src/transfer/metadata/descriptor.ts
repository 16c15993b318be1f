/**
 * Segment descriptors: what an engine tells others about itself, in Mooncake's JSON. Ours is that of a stock TCP engine,
 * with one more key that stock engines ignore (docs/native.md): our run, our own endpoints, and the numbers of our
 * segments. What others send is untrusted: whatever does not fit is refused, keys that are not known are passed over.
 */
import { errors } from '../../core/errors.js';
import type { Endpoint, Settings } from '../../native/addon.js';
import { isObject, type Json, parseJson, size, u64 } from './json.js';
import { isHost } from './name.js';

export interface Buffer {
  /** Of the segment that it belongs to. */
  name: string;
  address: bigint;
  /** Bytes. */
  length: number;
  /** With which NICs reach it; undefined: none can. */
  keys?: SegmentKeys;
}

/** One for each NIC of its engine, in the order in which it announces them; 0: not registered with that one. */
export interface SegmentKeys {
  local: number[];
  remote: number[];
}

/** A NIC as Mooncake's descriptors name it. */
export interface RdmaDevice {
  name: string;
  lid: number;
  /** 16 times two hexadecimal digits, joined with ":". */
  gid: string;
}

/** Where the peer moves data by Mooncake's own TCP stream, and in which version of it. */
export interface DataPort {
  /** Undefined: the host of its name. */
  host?: string;
  port: number;
  version: 1 | 2;
}

export interface OwnSegment extends Buffer {
  id: number;
  /** Peers may read it, not write it. */
  readOnly?: boolean;
  /** NICs alone reach it. */
  unmapped?: boolean;
}

/** What only engines of ours say. */
export interface Own {
  /** 16 hex digits, of this run. */
  generation: string;
  endpoints: Endpoint[];
  segments: OwnSegment[];
}

export interface SegmentDescriptor {
  name: string;
  /** "tcp", "rdma", …. */
  protocol: string;
  /** Undefined where the peer speaks no TCP. */
  data?: DataPort;
  buffers: Buffer[];
  /** Of a peer that speaks RDMA. */
  devices?: RdmaDevice[];
  own?: Own;
}

/** What we say of ourselves. */
export interface OwnDescriptor extends Required<Omit<SegmentDescriptor, 'devices'>> {
  /** What stock engines are told to use: "tcp", or "rdma" by these NICs. */
  protocol: 'tcp' | 'rdma';
  devices: RdmaDevice[];
}

const VERSION = 1;
const MAX_BUFFERS = 65_536;
const MAX_ENDPOINTS = 64;
const MAX_SETTINGS = 32;
const MAX_TEXT = 4096;
const MAX_DEVICES = 64;
/** Where all our memory is, to engines that choose NICs by place: any NIC is as good. */
const PLACE = 'cpu:0';

/** The JSON text of a descriptor of ours. */
export function formatDescriptor({ name, protocol, data, buffers, devices, own }: OwnDescriptor): string {
  const rdma = protocol === 'rdma';
  const numbers = ({ address, length }: Buffer) => `"addr":${address},"length":${length}`;
  const keys = ({ keys }: Buffer) => `"lkey":[${keys?.local ?? ''}],"rkey":[${keys?.remote ?? ''}]`;
  const fields = {
    name,
    protocol,
    tcp_data_port: data.port,
    tcp_proto_version: data.version,
    tcp_data_host: data.host,
    rdma_server_name: '',
    ...(rdma && { devices, priority_matrix: { [PLACE]: [devices.map((device) => device.name), []] } }),
    timestamp: new Date().toISOString().replace('T', ' ').replace('Z', '000'),
  };
  // JSON.stringify takes no bigint, and an address is one: the lists are put together by hand.
  const usable = rdma ? buffers.filter((buffer) => buffer.keys) : buffers;
  const stock = usable.map((buffer) =>
    rdma
      ? `{"name":"${PLACE}",${numbers(buffer)},${keys(buffer)}}`
      : `{"name":${JSON.stringify(buffer.name)},${numbers(buffer)}}`,
  );
  const ours = own.segments.map(
    ({ id, name, address, length, keys, readOnly }) =>
      `{"id":${id},"name":${JSON.stringify(name)},"address":${address},"length":${length}${readOnly ? ',"access":"read"' : ''}${keys ? `,"rkey":[${keys.remote}]` : ''}}`,
  );
  const { generation, endpoints } = own;
  const head = JSON.stringify({ version: VERSION, generation, endpoints }).slice(0, -1);
  return `${JSON.stringify(fields).slice(0, -1)},"buffers":[${stock}],"mooncake_ts":${head},"segments":[${ours}]}}`;
}

/** Throws ERR_PROTOCOL. */
export function parseDescriptor(text: string): SegmentDescriptor {
  const json = parseJson('a segment descriptor', text);
  if (!isObject(json)) throw errors.protocol('a segment descriptor that is no object', json);
  const { name, protocol, mooncake_ts: own } = json;
  const descriptor: SegmentDescriptor = {
    name: shortText('name', name),
    protocol: shortText('protocol', protocol),
    buffers: list('buffers', json.buffers ?? [], MAX_BUFFERS, readBuffer),
  };
  if (protocol === 'tcp') descriptor.data = readDataPort(json);
  if (protocol === 'rdma') descriptor.devices = list('devices', json.devices ?? [], MAX_DEVICES, readDevice);
  if (own !== undefined) descriptor.own = readOwn(own);
  return descriptor;
}

function refuse(field: string, value: unknown): never {
  throw errors.protocol(`a segment descriptor with a bad ${field}`, value);
}

function shortText(field: string, value: Json | undefined): string {
  if (typeof value !== 'string' || value === '' || value.length > MAX_TEXT) refuse(field, value);
  return value;
}

function list<T>(field: string, value: Json | undefined, most: number, read: (item: Json, field: string) => T): T[] {
  if (!Array.isArray(value) || value.length > most) refuse(field, value);
  return value.map((item, index) => read(item, `${field}[${index}]`));
}

function range(field: string, address: Json, length: Json): { address: bigint; length: number } {
  const [first, bytes] = [u64(address), size(length)];
  if (!first || !bytes || first + BigInt(bytes) > 1n << 64n) refuse(field, { address, length });
  return { address: first, length: bytes };
}

function readBuffer(item: Json, field: string): Buffer {
  if (!isObject(item)) refuse(field, item);
  return {
    name: shortText(`${field}.name`, item.name),
    ...range(field, item.addr, item.length),
    ...readKeys(field, item),
  };
}

function readKeys(field: string, { lkey, rkey }: { [key: string]: Json }): { keys?: SegmentKeys } {
  if (rkey === undefined) return {};
  const read = (item: Json, place: string) => (whole(item, 0, 0xffff_ffff) ? item : refuse(place, item));
  const remote = list(`${field}.rkey`, rkey, MAX_DEVICES, read);
  return { keys: { local: list(`${field}.lkey`, lkey ?? [], MAX_DEVICES, read), remote } };
}

function readDevice(item: Json, field: string): RdmaDevice {
  if (!isObject(item) || !whole(item.lid, 0, 0xffff)) refuse(field, item);
  const { name, gid } = item;
  if (typeof name !== 'string' || !/^[\w.:-]{1,64}$/.test(name)) refuse(`${field}.name`, name);
  if (typeof gid !== 'string' || !/^[0-9a-f]{2}(:[0-9a-f]{2}){15}$/.test(gid)) refuse(`${field}.gid`, gid);
  return { name, lid: item.lid, gid };
}

function readDataPort(json: { [key: string]: Json }): DataPort {
  const { tcp_data_port: port, tcp_proto_version: version = 1, tcp_data_host: host } = json;
  if (!whole(port, 1, 65_535)) refuse('tcp_data_port', port);
  if (!whole(version, 1, 0xffff_ffff)) refuse('tcp_proto_version', version);
  if (host !== undefined && host !== '' && (typeof host !== 'string' || !isHost(host))) refuse('tcp_data_host', host);
  return { port, version: version === 1 ? 1 : 2, ...(host ? { host } : {}) };
}

/** Undefined for versions to come: their engines are reached as stock ones are. */
function readOwn(json: Json): Own | undefined {
  if (!isObject(json) || !whole(json.version, 1, 0xffff_ffff)) refuse('mooncake_ts', json);
  if (json.version !== VERSION) return undefined;
  const { generation, endpoints, segments } = json;
  if (typeof generation !== 'string' || !/^[0-9a-f]{16}$/.test(generation))
    refuse('mooncake_ts.generation', generation);
  const own = {
    generation,
    endpoints: readEndpoints('mooncake_ts.endpoints', endpoints),
    segments: list('mooncake_ts.segments', segments, MAX_BUFFERS, readSegment),
  };
  if (new Set(own.segments.map(({ id }) => id)).size < own.segments.length) refuse('mooncake_ts.segments', segments);
  return own;
}

function readSegment(item: Json, field: string): OwnSegment {
  if (!isObject(item) || !whole(item.id, 0, 0xffff_ffff)) refuse(field, item);
  return {
    id: item.id,
    name: shortText(`${field}.name`, item.name),
    ...range(field, item.address, item.length),
    ...readKeys(field, item),
    ...(item.access === 'read' && { readOnly: true }),
  };
}

/** Throws ERR_PROTOCOL naming the field. */
export const readEndpoints = (field: string, value: Json | undefined) =>
  list(field, value, MAX_ENDPOINTS, readEndpoint);

function readEndpoint(item: Json, field: string): Endpoint {
  if (!isObject(item) || !isObject(item.settings)) refuse(field, item);
  const transport = shortText(`${field}.transport`, item.transport);
  const entries = Object.entries(item.settings);
  if (entries.length > MAX_SETTINGS) refuse(`${field}.settings`, item.settings);
  const settings: Settings = {};
  for (const [key, value] of entries) {
    if (!/^[A-Za-z][\w-]{0,63}$/.test(key) || typeof value !== 'string' || value.length > MAX_TEXT) {
      refuse(`${field}.settings`, item.settings);
    }
    settings[key] = value;
  }
  return { transport, settings };
}

function whole(value: Json | undefined, min: number, max: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max;
}
