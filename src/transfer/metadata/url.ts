/** Settings that name a server of metadata: `scheme://[user:password@]host[:port][,host[:port]…][/path]`. */
import { errors } from '../../core/errors.js';
import { isAddress } from '../tcp/address.js';

export interface Credentials {
  user: string;
  password: string;
}

export interface StoreUrl {
  credentials?: Credentials;
  /** `host:port`, IPv6 hosts in brackets, with `http://` or `https://` before it where that was given. At least one. */
  hosts: string[];
  /** Behind the hosts, without its slash. */
  path: string;
}

const SETTING = /^(?:\w+:\/\/)?(?:([^@/]*)@)?((?:https?:\/\/)?[^/]+?)(?:\/([^/]*))?$/;
const HOST = /^((?:https?:\/\/)?)(\[[^\]]+\]|[^:[\]]+)(?::(\d+))?$/;

/** Throws ERR_INVALID_ARGUMENT naming `argument`; its value is shown without a password. */
export function readUrl(argument: string, setting: string, scheme: string, defaultPort: number): StoreUrl {
  const refuse = () =>
    errors.invalidArgument(
      argument,
      withoutPassword(setting),
      `"${scheme}://[user:password@]host:port", an IPv6 host in brackets`,
    );
  const [, authority, list, path = ''] = SETTING.exec(setting) ?? [];
  if (list === undefined) throw refuse();
  const hosts = list.split(/[,;]/).map((text) => {
    const [, prefix, host, port = String(defaultPort)] = HOST.exec(text.trim()) ?? [];
    if (host === undefined || !isAddress(`tcp://${host}:${port}`)) throw refuse();
    return `${prefix}${host}:${port}`;
  });
  if (authority === undefined) return { hosts, path };
  const at = authority.indexOf(':');
  try {
    const user = decodeURIComponent(at < 0 ? authority : authority.slice(0, at));
    const password = at < 0 ? '' : decodeURIComponent(authority.slice(at + 1));
    return { credentials: { user, password }, hosts, path };
  } catch {
    throw refuse();
  }
}

/** A setting as it may be shown and logged. */
export function withoutPassword(setting: string): string {
  return setting.replace(/^(\w+:\/\/[^:@/]*):[^@]*@/, '$1:…@');
}
