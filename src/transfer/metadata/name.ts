/** Names of transfer engines: `host:port`, IPv6 hosts in brackets, as Mooncake names segments. */
import { string } from '../../core/check.js';
import { errors } from '../../core/errors.js';
import { formatAddress, isAddress, type Place, parseAddress } from '../tcp/address.js';

const SCHEME = 'tcp://';

/** Throws ERR_INVALID_ARGUMENT. */
export function parseName(argument: string, name: string): Place {
  const address = SCHEME + string(argument, name);
  if (!isAddress(address)) throw errors.invalidArgument(argument, name, '"host:port", an IPv6 host in brackets');
  return parseAddress(address);
}

export const formatName = (place: Place) => formatAddress(place).slice(SCHEME.length);

/** Whether the text can stand for a host: a name, an IPv4 address or an IPv6 address without brackets. */
export const isHost = (host: string) => isAddress(formatAddress({ host, port: 1 }));
