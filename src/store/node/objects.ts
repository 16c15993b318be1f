/**
 * The REST API of objects, as the stock store service has it: paths, bodies and statuses are its own. What went wrong
 * is said beside them in a header. A body that is not what it should be is 400, where stock shows an exception of its
 * language as 500.
 */
import { isWellFormed } from '../../core/check.js';
import { errors, MooncakeError } from '../../core/errors.js';
import type { MooncakeStore } from '../store.js';
import { type Answer, type Call, failed, json, type Routes } from './http.js';

const DONE = json({ status: 'success' });
const MISSING = json({ error: 'Missing key or value' }, 400);

/** `tenant`: whose objects these are. */
export function objectRoutes(store: MooncakeStore, tenant: string): Routes {
  return {
    'PUT /api/put': async (call) => {
      const given = await fields(call);
      const { key, value } = given;
      if (key === '' || key === undefined || key === null || value === undefined || value === null) return MISSING;
      const stored = { key: utf8('key', key), value: utf8('value', value) };
      return attempt('PUT operation failed', async () => {
        // What is there already counts as stored, whatever its value: objects never change.
        await store.put(stored.key, stored.value, { tenant, signal: call.signal });
        return DONE;
      });
    },
    'GET /api/get/{key}': async ({ variable, signal }) => {
      const value = await store.get(variable, { tenant, signal });
      if (!value) return json({ error: 'Key not found' }, 404);
      return { status: 200, type: 'application/octet-stream', body: value };
    },
    'GET /api/exist/{key}': async ({ variable, signal }) =>
      json({ exists: await store.isExist(variable, { tenant, signal }) }),
    'DELETE /api/remove/{key}': ({ variable, signal }) =>
      attempt('Remove operation failed', async () => {
        if (await store.remove(variable, { tenant, signal })) return DONE;
        throw new MooncakeError('ERR_NOT_FOUND', 'no such object');
      }),
    'DELETE /api/remove_all': async ({ signal }) =>
      json({ status: `success removed ${await store.removeAll({ tenant, signal })} keys` }),
  };
}

/** The fields of a body. Throws ERR_INVALID_ARGUMENT. */
export async function fields(call: Call): Promise<Readonly<Record<string, unknown>>> {
  const body = await call.json();
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw errors.invalidArgument('body', body, 'a JSON object');
  }
  return body as Record<string, unknown>;
}

function utf8(field: string, value: unknown): Uint8Array {
  if (typeof value === 'string' && isWellFormed(value)) return Buffer.from(value);
  throw errors.invalidArgument(field, value, 'a string of whole characters');
}

async function attempt(words: string, work: () => Promise<Answer>): Promise<Answer> {
  try {
    return await work();
  } catch (error) {
    return failed({ error: words }, error);
  }
}
