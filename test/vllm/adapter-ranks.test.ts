// Our MooncakeStoreConnector (integrations/vllm) in engines of several ranks, tensor-parallel and data-parallel.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, sameTokens } from './support/baseline.js';
import { Cluster } from './support/cluster.js';
import { dataParallel } from './support/data-parallel.js';
import { NodeService } from './support/node-service.js';
import { LOADABLE, PROMPTS, sum } from './support/prompts.js';

const engineTest = withVllm(test);

engineTest('two tensor-parallel ranks', () =>
  NodeService.use(async (service) => {
    const llm = { tensor_parallel_size: 2, distributed_executor_backend: 'mp' };
    const expected = await baseline(PROMPTS, { llm });
    const engine = await service.engine('TP 2', llm);
    try {
      sameTokens(await engine.generate(PROMPTS), expected);
      await engine.reset();
      const loaded = await engine.generate(PROMPTS);
      sameTokens(loaded, expected);
      assert.is(await engine.externalTokens(), sum(LOADABLE));
    } finally {
      await engine.stop();
    }
  }),
);

engineTest('two data-parallel ranks, our connector', () =>
  Cluster.use((cluster) =>
    NodeService.use(async (service) => dataParallel(cluster, await service.args('store')), { cluster }),
  ),
);

test.run();
