/** A cluster, a node service that has joined it, and engines with our store connector. */
import { Cluster } from './cluster.js';
import { Engine, type LlmOptions } from './engine.js';
import { NodeService } from './node-service.js';

export interface Parts {
  readonly cluster: Cluster;
  readonly service: NodeService;
  /** An engine at the service; `extra`: keys of its kv_connector_extra_config. */
  start(llm?: LlmOptions, extra?: Record<string, unknown>): Promise<Engine>;
}

/** All of it ends with `work`. */
export async function withParts(work: (parts: Parts) => Promise<void>): Promise<void> {
  await Cluster.use(async (cluster) => {
    const service = await NodeService.start({ cluster });
    const engines: Engine[] = [];
    const start = async (llm?: LlmOptions, extra: Record<string, unknown> = {}) => {
      const { transfer, env } = await service.args('store');
      const config = { ...transfer.kv_connector_extra_config, ...extra };
      const name = `engine ${engines.length + 1}`;
      const engine = await Engine.start({
        name,
        env,
        llm,
        transfer: { ...transfer, kv_connector_extra_config: config },
      });
      engines.push(engine);
      return engine;
    };
    try {
      await work({ cluster, service, start });
    } finally {
      await Promise.all(engines.map((engine) => engine.stop()));
      await service.end();
    }
  });
}
