/** Addresses of engines as operators write them: `http://host:port` or `host:port`, IPv6 hosts in brackets. */
import { integer, string } from '../core/check.js';
import { errors } from '../core/errors.js';

export interface EngineAddress {
  /** `http://host:port`, the instance's name everywhere. */
  readonly url: string;
  /** Without brackets. */
  readonly host: string;
  readonly port: number;
}

/** @throws ERR_INVALID_ARGUMENT, ERR_NOT_SUPPORTED for https */
export function engineAddress(argument: string, value: unknown): EngineAddress {
  const text = string(argument, value).trim();
  if (/^https:/i.test(text)) {
    throw errors.notSupported(`${argument} ${text}`, 'engines are reached by http:// (put TLS in front of the proxy)');
  }
  const url = /^http:\/\//i.test(text) ? text : `http://${text}`;
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  const isPlain =
    parsed !== undefined &&
    parsed.pathname === '/' &&
    !parsed.search &&
    !parsed.hash &&
    !parsed.username &&
    !parsed.password;
  // URL leaves out the port where it is 80; a host alone is a slip.
  if (!isPlain || !/:\d+\/?$/.test(text) || parsed.port === '0') {
    throw errors.invalidArgument(argument, value, '"host:port" or "http://host:port", an IPv6 host in brackets');
  }
  const port = parsed.port === '' ? 80 : Number(parsed.port);
  return { url: `http://${parsed.hostname}:${port}`, host: parsed.hostname.replace(/^\[|\]$/g, ''), port };
}

/** Where an engine's bootstrap server listens: on the engine's host. */
export function bootstrapUrl({ url, port }: EngineAddress, bootstrapPort: number): string {
  integer('bootstrapPort', bootstrapPort, 1, 65_535);
  return `${url.slice(0, -String(port).length)}${bootstrapPort}`;
}
