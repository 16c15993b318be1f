/**
 * Mooncake's handshake of type 0, by which two NICs agree on a connection: its JSON, and the flat settings that the accelerator
 * speaks (native/transport/rdma/endpoint.h). Engines of ours say more about themselves under one key that others pass over.
 */
import { errors } from '../../core/errors.js';
import type { Settings } from '../../native/addon.js';
import { isObject, type Json, parseJson } from './json.js';

const TEXTS = ['local_nic_path', 'peer_nic_path', 'local_gid', 'reply_msg'] as const;
/** The names of ours are those of the settings, without the mark. */
const OWN = ['generation', 'peer_generation', 'link', 'mtu'] as const;
const MARK = 'ts_';
const MAX_TEXT = 4096;
const MAX_QUEUE_PAIRS = 64;

/** As stock engines say it: every field, whether it means something or not. */
export function formatConnection(settings: Settings): string {
  const own = OWN.filter((name) => settings[MARK + name] !== undefined);
  return JSON.stringify({
    local_gid: settings.local_gid ?? '',
    local_lid: Number(settings.local_lid ?? 0),
    local_nic_path: settings.local_nic_path ?? '',
    payload: '',
    peer_nic_path: settings.peer_nic_path ?? '',
    qp_num: settings.qp_num ? settings.qp_num.split(',').map(Number) : [],
    ...(settings.ready_ack !== undefined && { ready_ack: settings.ready_ack === 'true' }),
    reply_msg: settings.reply_msg ?? '',
    ...(own.length > 0 && { mooncake_ts: Object.fromEntries(own.map((name) => [name, settings[MARK + name]])) }),
  });
}

/** Throws ERR_PROTOCOL naming the field. */
export function parseConnection(text: string): Settings {
  const json = parseJson('an RDMA handshake', text);
  if (!isObject(json)) throw errors.protocol('an RDMA handshake that is no object', json);
  const settings: Settings = {};
  for (const name of TEXTS) settings[name] = shortText(name, json[name] ?? '');
  settings.local_lid = `${whole('local_lid', json.local_lid ?? 0, 0xffff)}`;
  const { qp_num: numbers = [], ready_ack: ready, mooncake_ts: own } = json;
  if (!Array.isArray(numbers) || numbers.length > MAX_QUEUE_PAIRS) refuse('qp_num', numbers);
  settings.qp_num = numbers.map((number) => whole('qp_num', number, 0xff_ffff)).join(',');
  if (ready !== undefined) {
    if (typeof ready !== 'boolean') refuse('ready_ack', ready);
    settings.ready_ack = `${ready}`;
  }
  if (own === undefined) return settings;
  if (!isObject(own)) refuse('mooncake_ts', own);
  for (const name of OWN) if (own[name] !== undefined) settings[MARK + name] = shortText(name, own[name]);
  return settings;
}

function refuse(field: string, value: Json | undefined): never {
  throw errors.protocol(`an RDMA handshake with a bad ${field}`, value);
}

function shortText(field: string, value: Json | undefined): string {
  if (typeof value !== 'string' || value.length > MAX_TEXT) refuse(field, value);
  return value;
}

function whole(field: string, value: Json, most: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > most) refuse(field, value);
  return value;
}
