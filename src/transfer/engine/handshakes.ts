/** What an engine answers to handshakes, and the notifications that come by them. */
import { errors } from '../../core/errors.js';
import { HANDSHAKE } from '../metadata/handshake.js';
import { isObject, parseJson } from '../metadata/json.js';
import type { Notification } from './api.js';

/** Kept until somebody listens; more are refused. */
const MAX_WAITING = 1024;

type Listener = (notification: Notification) => void;

export class Notifications {
  readonly #listeners = new Set<Listener>();
  #waiting: Notification[] = [];

  /** The first listener gets what came before it. The returned function ends it. */
  listen(listener: Listener): () => void {
    // One that is added twice is called twice, and ended once.
    const own: Listener = (notification) => listener(notification);
    this.#listeners.add(own);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const notification of waiting) queueMicrotask(() => own(notification));
    return () => {
      this.#listeners.delete(own);
    };
  }

  /** False where it could not be kept. */
  deliver(notification: Notification): boolean {
    // What a listener throws is its own, not the handshake's.
    for (const listener of this.#listeners) queueMicrotask(() => listener(notification));
    if (this.#listeners.size > 0) return true;
    if (this.#waiting.length >= MAX_WAITING) return false;
    this.#waiting.push(notification);
    return true;
  }
}

/** The text that answers a handshake. Throws ERR_PROTOCOL: then there is no answer. */
export function answerHandshake(
  type: number,
  text: string,
  describe: () => string,
  notifications: Notifications,
): string {
  switch (type) {
    case HANDSHAKE.metadata:
      return describe();
    case HANDSHAKE.probe:
      return '{"status":"success"}';
    case HANDSHAKE.notify:
      return JSON.stringify({ name: '', notify_msg: deliver(text, notifications) ? 'success' : 'too many wait' });
    default:
      // RDMA's: the fields of a stock engine's answer; one that has a message refuses.
      return JSON.stringify({
        local_nic_path: '',
        peer_nic_path: '',
        qp_num: [],
        reply_msg: 'this engine has no RDMA connections',
      });
  }
}

function deliver(text: string, notifications: Notifications): boolean {
  const json = parseJson('a notification', text);
  const { name, notify_msg: message } = isObject(json) ? json : {};
  if (typeof name !== 'string' || typeof message !== 'string') {
    throw errors.protocol('a notification without name and message', json);
  }
  return notifications.deliver({ name, message });
}
