/** Addresses of TCP transfers: `tcp://host:port`, IPv6 hosts in brackets. */
import { isIPv6 } from 'node:net';
import { string } from '../../core/check.js';
import { errors } from '../../core/errors.js';

export interface Place {
  host: string;
  port: number;
}

const ADDRESS = /^tcp:\/\/(?:\[([0-9a-fA-F:.%\w]+)\]|([^\s:/[\]]+)):(\d{1,5})$/;
const MAX_LENGTH = 300;

function parse(address: string): Place | undefined {
  const match = address.length <= MAX_LENGTH ? ADDRESS.exec(address) : null;
  const port = Number(match?.[3]);
  if (!match || port < 1 || port > 65535 || (match[1] !== undefined && !isIPv6(match[1]))) return undefined;
  return { host: (match[1] ?? match[2]).toLowerCase(), port };
}

/** Throws ERR_INVALID_ARGUMENT. */
export function parseAddress(address: string): Place {
  const place = parse(string('address', address));
  if (!place) throw errors.invalidArgument('address', address, '"tcp://host:port", an IPv6 host in brackets');
  return place;
}

export const isAddress = (address: string) => parse(address) !== undefined;

export function formatAddress({ host, port }: Place): string {
  return isIPv6(host) ? `tcp://[${host}]:${port}` : `tcp://${host}:${port}`;
}
