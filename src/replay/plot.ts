/** Hit rate over capacity as an SVG: a line per policy, the rate without limit as a dashed line, light and dark. */
import { COLOURS, escapeXml, round, STYLE, spread } from './drawing.js';
import type { ReplayResult } from './replay.js';

const WIDTH = 820;
const HEIGHT = 480;
const LEFT = 64;
const RIGHT = 96;
const TOP = 72;
const BOTTOM = 64;
/** Characters of a title that fit beside the rest of the heading. */
const MAX_TITLE = 56;

const shortened = (text: string) => (text.length > MAX_TITLE ? `${text.slice(0, MAX_TITLE - 1)}…` : text);

function capacityLabel(blocks: number): string {
  if (blocks >= 1e6) return `${Number((blocks / 1e6).toPrecision(3))}M`;
  return blocks >= 1000 ? `${Number((blocks / 1000).toPrecision(3))}k` : `${blocks}`;
}

/** The SVG text. `title` names the trace. */
export function plotSvg(results: readonly ReplayResult[], title: string): string {
  const finite = results.filter(({ blocks }) => blocks !== Infinity);
  const unlimited = Math.max(0, ...results.filter(({ blocks }) => blocks === Infinity).map(({ hitRate }) => hitRate));
  const capacities = [...new Set(finite.map(({ blocks }) => blocks))].sort((a, b) => a - b);
  const first = capacities[0] ?? 1;
  const last = capacities.at(-1) ?? 10;
  const rightEdge = WIDTH - RIGHT;
  const bottomEdge = HEIGHT - BOTTOM;
  const x = (blocks: number) =>
    first === last
      ? (LEFT + rightEdge) / 2
      : LEFT + ((rightEdge - LEFT) * Math.log(blocks / first)) / Math.log(last / first);
  const { top, step } = rateScale(Math.max(unlimited, ...finite.map(({ hitRate }) => hitRate)));
  const y = (rate: number) => bottomEdge - ((bottomEdge - TOP) * rate) / top;

  const parts: string[] = [];
  for (let rate = 0; rate <= top + step / 2; rate += step) {
    const at = round(y(rate));
    parts.push(`<line class="${rate === 0 ? 'axis' : 'grid'}" x1="${LEFT}" x2="${rightEdge}" y1="${at}" y2="${at}"/>`);
    parts.push(`<text x="${LEFT - 10}" y="${at + 4}" text-anchor="end">${Math.round(rate * 100)} %</text>`);
  }
  let labelled = -Infinity;
  for (const blocks of capacities) {
    const at = round(x(blocks));
    parts.push(`<line class="axis" x1="${at}" x2="${at}" y1="${bottomEdge}" y2="${bottomEdge + 5}"/>`);
    if (at - labelled < 34) continue;
    labelled = at;
    parts.push(`<text x="${at}" y="${bottomEdge + 22}" text-anchor="middle">${capacityLabel(blocks)}</text>`);
  }
  if (unlimited > 0) {
    const at = round(y(unlimited));
    parts.push(`<line class="limit" x1="${LEFT}" x2="${rightEdge}" y1="${at}" y2="${at}"/>`);
    parts.push(`<text class="quiet" x="${LEFT + 4}" y="${at - 7}">no limit: ${(unlimited * 100).toFixed(1)} %</text>`);
  }

  const names: { name: string; style: string; y: number }[] = [];
  const policies = [...new Set(results.map(({ policy }) => policy))];
  policies.forEach((policy, order) => {
    const style = policy === 'opt' ? 'x' : `${order % COLOURS.length}`;
    const points = finite.filter((result) => result.policy === policy).sort((a, b) => a.blocks - b.blocks);
    if (points.length === 0) return;
    const path = points.map(({ blocks, hitRate }) => `${round(x(blocks))},${round(y(hitRate))}`);
    parts.push(`<polyline class="line s${style}${policy === 'opt' ? ' bound' : ''}" points="${path.join(' ')}"/>`);
    for (const { blocks, hitRate } of points) {
      const tip = `${policy}, ${blocks.toLocaleString('en-US')} blocks: ${(hitRate * 100).toFixed(2)} %`;
      const centre = `cx="${round(x(blocks))}" cy="${round(y(hitRate))}"`;
      parts.push(`<circle class="dot f${style}" ${centre} r="4"><title>${tip}</title></circle>`);
    }
    names.push({ name: policy, style, y: y(points.at(-1)!.hitRate) });
  });
  const labelX = round((capacities.length === 1 ? x(first) : rightEdge) + 12);
  for (const { name, style, y: at } of spread(names, HEIGHT - BOTTOM)) {
    parts.push(`<text class="name f${style}" x="${labelX}" y="${round(at + 4)}">${escapeXml(name)}</text>`);
  }

  const middle = (LEFT + rightEdge) / 2;
  const { requests = 0, totalBlocks = 0, uniqueBlocks = 0 } = results[0] ?? {};
  const [r, t, u] = [requests, totalBlocks, uniqueBlocks].map((value) => value.toLocaleString('en-US'));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img">
  <title>${escapeXml(title)}: hit rate by capacity and eviction policy</title>
  <style>${STYLE}
  </style>
  <rect class="page" width="${WIDTH}" height="${HEIGHT}"/>
  <text class="title" x="${LEFT}" y="30">Prefix-cache hit rate: ${escapeXml(shortened(title))}</text>
  <text class="quiet" x="${LEFT}" y="50">${r} requests, ${t} blocks, ${u} distinct; leading run of present blocks, weighted by blocks</text>
  ${parts.join('\n  ')}
  <text class="quiet" x="${middle}" y="${HEIGHT - 16}" text-anchor="middle">capacity in blocks (logarithmic)</text>
</svg>
`;
}

/** A round upper end and distance of grid lines for rates up to `most`. */
function rateScale(most: number): { top: number; step: number } {
  const step = [0.01, 0.02, 0.05, 0.1, 0.2].find((candidate) => most / candidate <= 6) ?? 0.2;
  return { top: Math.max(step, Math.ceil((most + 1e-9) / step) * step), step };
}
