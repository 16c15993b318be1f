/** One call of an RPC service: its number on the wire, and the types of its arguments and its answer. */
import { createHash } from 'node:crypto';
import { typeCode } from './struct-pack.js';
import { type Shape, type StructValue, struct, type Type, type Value } from './types.js';

export type Fields = Record<string, Shape>;

export interface Method<A, R> {
  readonly name: string;
  /** First 4 bytes of MD5 of the C++ name. Source: coro_rpc, function ids. */
  readonly id: number;
  /** undefined: no arguments, an empty body. */
  readonly arguments?: Type<A>;
  readonly result: Type<R>;
  /** Type codes that identify the schema; -1 where there are no arguments. */
  readonly argumentCode: number;
  readonly resultCode: number;
}

/** The function id of a method of a C++ class: Mooncake's master, where none is named. */
export function functionId(method: string, service = 'mooncake::WrappedMasterService'): number {
  return createHash('md5').update(`${service}::${method}`).digest().readUInt32BE(0);
}

/** One argument travels as itself, several as a tuple, which looks like a struct of them. */
function tuple<F extends Fields>(fields: F): Type<StructValue<F>> | undefined {
  const names = Object.keys(fields);
  if (names.length === 0) return undefined;
  const whole = struct(fields);
  if (names.length > 1) return whole;
  const only = fields[names[0]];
  // The same bytes as the struct's: only what is hashed differs.
  return { ...whole, literal: only.literal };
}

export function method<F extends Fields, R extends Shape>(
  name: string,
  fields: F,
  result: R,
  service?: string,
): Method<StructValue<F>, Value<R>> {
  const args = tuple(fields);
  return {
    name,
    id: functionId(name, service),
    arguments: args,
    result: result as Type<Value<R>>,
    argumentCode: args ? typeCode(args) : -1,
    resultCode: typeCode(result),
  };
}
