/** What our drawings have in common: SVG text that reads well on light and dark pages, and to colour-blind readers. */

const LABEL_GAP = 16;

/** Okabe and Ito's colours, which stay apart for colour-blind readers; lightened for dark pages. */
export const COLOURS = [
  ['#0072b2', '#56b4e9'],
  ['#d55e00', '#f0883e'],
  ['#009e73', '#2fc89b'],
  ['#b0568c', '#e29ac4'],
  ['#8a6d00', '#e6c229'],
];

export const STYLE = `
    .page { fill: #ffffff } text { fill: #24292f; font: 13px system-ui, -apple-system, "Segoe UI", sans-serif }
    .title { font-size: 17px; font-weight: 600 } .quiet { fill: #6e7781; font-size: 12px }
    .grid { stroke: #d8dee4 } .axis { stroke: #8c959f } .limit { stroke: #6e7781; stroke-dasharray: 2 5 }
    .line { fill: none; stroke-width: 2.25; stroke-linejoin: round } .dot { stroke: #ffffff; stroke-width: 1.5 }
    .name { font-weight: 600 } .bound { stroke-dasharray: 7 4 }
${COLOURS.map(([light], at) => `    .s${at} { stroke: ${light} } .f${at} { fill: ${light} }`).join('\n')}
    .sx { stroke: #57606a } .fx { fill: #57606a }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 } text { fill: #e6edf3 } .quiet { fill: #8b949e }
      .grid { stroke: #262c36 } .axis { stroke: #6e7681 } .limit { stroke: #8b949e } .dot { stroke: #0d1117 }
${COLOURS.map(([, dark], at) => `      .s${at} { stroke: ${dark} } .f${at} { fill: ${dark} }`).join('\n')}
      .sx { stroke: #b1bac4 } .fx { fill: #b1bac4 }
    }`;

export const escapeXml = (text: string) => text.replace(/[&<>"]/g, (mark) => `&#${mark.charCodeAt(0)};`);
/** A coordinate, to a tenth of a pixel. */
export const round = (value: number) => Number(value.toFixed(1));

/** Moves labels apart, keeping their order and as near to their lines as fits above `bottom`. */
export function spread<T extends { y: number }>(labels: T[], bottom: number): T[] {
  const sorted = [...labels].sort((a, b) => a.y - b.y);
  for (let at = 1; at < sorted.length; at++) sorted[at].y = Math.max(sorted[at].y, sorted[at - 1].y + LABEL_GAP);
  const over = (sorted.at(-1)?.y ?? 0) - bottom;
  if (over > 0) for (const label of sorted) label.y -= over;
  return sorted;
}
