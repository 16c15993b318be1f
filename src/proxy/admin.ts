/** Engines added and removed while the proxy runs, under the paths of vLLM's XpYd proxy demo, and what it says of itself. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { oneOf, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import { engineAddress } from './address.js';
import { json, jsonObject, Refusal, readBody } from './answers.js';
import type { Fleet } from './fleet.js';
import type { Instance, Role } from './instance.js';
import { instanceOptions, type ProxySettings } from './options.js';

const MAX_BODY = 64 * 1024;
const ROLES = ['prefill', 'decode'] as const;

/** `POST /instances/add` and `/instances/remove`: `{"type": "prefill" | "decode", "instance": "host:port"}`. */
export async function changeInstances(
  change: 'add' | 'remove',
  fleet: Fleet,
  settings: ProxySettings,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  authenticate(request.headers['x-api-key'], settings.adminKey);
  const body = jsonObject(await readBody(request, MAX_BODY));
  const role: Role = oneOf('type', body.type, ROLES);
  const url = string('instance', body.instance);
  if (change === 'remove') {
    const instance = fleet.remove(role, engineAddress('instance', url));
    const message = `Removed ${url} from ${role}_instances.`;
    return json(response, 200, { message, in_flight: instance.flights.size });
  }
  const bootstrapPort = body.bootstrap_port as number | 'none' | undefined;
  const options = instanceOptions('instance', role, { url, bootstrapPort }, settings.mode);
  await fleet.join(options);
  json(response, 200, { message: `Added ${url} to ${role}_instances.` });
}

function authenticate(given: string | string[] | undefined, key: string | undefined): void {
  const refusal = (status: number, expected: string) =>
    new Refusal(status, errors.invalidArgument('X-API-Key', undefined, expected));
  if (key === undefined) throw refusal(403, 'the ADMIN_API_KEY of the proxy, which was started without one');
  if (typeof given !== 'string') throw refusal(401, 'given: the ADMIN_API_KEY of the proxy');
  const digest = (text: string) => createHash('sha256').update(text).digest();
  if (!timingSafeEqual(digest(given), digest(key))) throw refusal(403, 'the ADMIN_API_KEY of the proxy');
}

/** `GET /status`: the fields of vLLM's XpYd proxy demo, and each engine. */
export function status(fleet: Fleet, settings: ProxySettings): object {
  const of = (role: Role) => fleet.instances.filter((one) => one.role === role && one.state !== 'draining');
  const [prefill, decode] = [of('prefill'), of('decode')];
  return {
    prefill_node_count: prefill.length,
    decode_node_count: decode.length,
    prefill_nodes: prefill.map(nodeOf),
    decode_nodes: decode.map(nodeOf),
    mode: settings.mode,
    scheduling: settings.scheduling,
    instances: fleet.instances.map(instanceStatus),
  };
}

const nodeOf = ({ name }: Instance) => name.slice('http://'.length);

function instanceStatus(instance: Instance): object {
  const { role, name, state, why, bootstrap, lanes, settings, load, flights, requests, failures } = instance;
  const engineIds = lanes.map(({ engineId }) => engineId).filter((id) => id !== undefined);
  return {
    type: role,
    instance: name,
    state,
    ...(why !== '' && { why }),
    ...(role === 'prefill' && { handover: engineIds.length > 0 ? 'transfer' : 'store' }),
    ...(bootstrap !== undefined && { bootstrap }),
    ...(engineIds.length > 0 && { engine_ids: engineIds }),
    ...(settings && { settings }),
    load_blocks: load,
    in_flight: flights.size,
    requests,
    failures,
  };
}
