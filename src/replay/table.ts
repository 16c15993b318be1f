/** The results of a replay for people: one row per capacity, one column per policy. */
import type { ReplayResult } from './replay.js';

export interface TableStyle {
  bold(text: string): string;
  dim(text: string): string;
}

export const PLAIN: TableStyle = { bold: (text) => text, dim: (text) => text };

const count = (value: number) => (value === Infinity ? 'no limit' : value.toLocaleString('en-US'));

/** Hit rates and evictions. The best rate of each row that is not the offline optimum's is bold. */
export function formatTable(results: readonly ReplayResult[], style: TableStyle = PLAIN): string {
  const policies = [...new Set(results.map(({ policy }) => policy))];
  const capacities = [...new Set(results.map(({ blocks }) => blocks))];
  const find = (blocks: number, policy: string) =>
    results.find((result) => result.blocks === blocks && result.policy === policy);

  const matrix = (
    title: string,
    cell: (result: ReplayResult) => string,
    emphasis?: (row: ReplayResult[]) => number,
  ) => {
    const lines = [style.dim([title.padEnd(10), ...policies.map((policy) => policy.padStart(9))].join(' '))];
    for (const blocks of capacities) {
      const row = policies.map((policy) => find(blocks, policy)).filter((result) => result !== undefined);
      const best = emphasis?.(row);
      const cells = row.map((result) => {
        const text = cell(result).padStart(9);
        return best !== undefined && result.policy !== 'opt' && result.hitBlocks === best ? style.bold(text) : text;
      });
      lines.push([count(blocks).padStart(10), ...cells].join(' '));
    }
    return lines.join('\n');
  };

  const bestOnline = (row: ReplayResult[]) =>
    Math.max(...row.filter(({ policy }) => policy !== 'opt').map(({ hitBlocks }) => hitBlocks));
  return [
    matrix('hit rate', ({ hitRate }) => hitRate.toFixed(4), bestOnline),
    matrix('evictions', ({ evictions }) => count(evictions)),
  ].join('\n\n');
}

/** One JSON line. The rate has four decimals; `hitBlocks` over `totalBlocks` is exact. No limit is "inf". */
export function formatJson(result: ReplayResult): string {
  return JSON.stringify({
    ...result,
    blocks: result.blocks === Infinity ? 'inf' : result.blocks,
    hitRate: Number(result.hitRate.toFixed(4)),
    seconds: Number(result.seconds.toFixed(3)),
  });
}
