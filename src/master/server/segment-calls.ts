/**
 * The calls about clients and what they lend, and the few about the cluster itself.
 *
 * A segment that is remounted and not known here was lent to a master before this one, whose readers may still be at its
 * bytes: it is fenced for one lease, then starts empty.
 */
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import type { RpcServer } from '../../rpc/server.js';
import { failure, success, verdict } from '../../rpc/types.js';
import type { SegmentFigures, Uuid } from '../api.js';
import { STATUS } from '../status.js';
import type { Lending } from './lending.js';
import { segmentFromWire } from './replicas.js';

/** What clients compare with their own, byte for byte; the same in all wheels since November 2025. */
export const STORE_VERSION = '2.0.0';

/** Numbers of Mooncake's SegmentStatus. */
const SEGMENT = { ok: 1, draining: 2, drained: 3, leaving: 4 } as const;

/** How a segment stands, as Mooncake numbers and names it. */
export function standing({ drain, isLeaving }: Pick<SegmentFigures, 'drain' | 'isLeaving'>): [number, string] {
  if (drain === 'draining') return [SEGMENT.draining, 'DRAINING'];
  if (drain === 'drained') return [SEGMENT.drained, 'DRAINED'];
  return isLeaving ? [SEGMENT.leaving, 'GRACEFULLY_UNMOUNTING'] : [SEGMENT.ok, 'OK'];
}

export function serveSegments(server: RpcServer, lending: Lending): void {
  server.handle(METHODS.ServiceReady, () => success(STORE_VERSION));
  server.handle(METHODS.GetFsdir, () => success(''));
  server.handle(METHODS.GetStorageConfig, () => success({ fsdir: '', diskEviction: true, quota: 0n }));
  server.handle(METHODS.Ping, ({ client }) => success({ view: 0n, clientState: lending.ping(client) }));

  server.handle(METHODS.MountSegment, async ({ segment, client }) =>
    verdict(await lending.mount(segmentFromWire(segment), client)),
  );
  server.handle(METHODS.ReMountSegment, ({ segments, client }) =>
    verdict(lending.remount(segments.map(segmentFromWire), client)),
  );
  server.handle(METHODS.UnmountSegment, ({ segment, client }) => verdict(lending.unmount(segment, client)));
  server.handle(METHODS.GracefulUnmountSegment, ({ segment, client, graceMs }) =>
    verdict(lending.unmountLater(segment, client, Number(graceMs))),
  );

  const state = (known: SegmentFigures | undefined) => {
    return known ? success(standing(known)[0]) : failure(STATUS.segmentNotFound);
  };
  server.handle(METHODS.QuerySegmentStatus, ({ name }) => state(lending.segments().find((one) => one.name === name)));
  server.handle(METHODS.QuerySegmentStatusById, ({ segment }) =>
    state(lending.segments().find((one) => one.id === segment)),
  );
  server.handle(METHODS.BatchQueryIp, ({ clients }) => {
    const value = new Map<Uuid, readonly string[]>();
    for (const client of clients) {
      const hosts = lending
        .segments()
        .filter((one) => one.client === client)
        .map((one) => hostOf(one.endpoint));
      if (hosts.length > 0) value.set(client, [...new Set(hosts)]);
    }
    return success(value);
  });
}

function hostOf(endpoint: string): string {
  const colon = endpoint.lastIndexOf(':');
  return colon < 0 ? endpoint : endpoint.slice(0, colon).replace(/^\[|\]$/g, '');
}
