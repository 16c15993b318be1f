/** `mooncake-ts doctor`: what was found on this machine, what was not and why, what that means and how to mend it. */
import type { Command } from 'commander';
import colors from 'picocolors';
import type { Finding, State } from '../doctor/finding.js';
import { examine } from '../doctor/report.js';
import { printable } from './printable.js';

const MARKS: Record<State, { text: string; paint: (text: string) => string }> = {
  ok: { text: 'ok', paint: colors.green },
  note: { text: '–', paint: colors.dim },
  degraded: { text: 'degraded', paint: colors.yellow },
};
const MARK_WIDTH = 10;

function lines({ topic, state, found, means, mend }: Finding, width: number): string[] {
  const { text, paint } = MARKS[state];
  const head = `${paint(text.padEnd(MARK_WIDTH))}${topic.padEnd(width)}  `;
  const indent = ' '.repeat(MARK_WIDTH + width + 2);
  return [
    head + printable(found),
    ...(means ? [indent + colors.dim(printable(means))] : []),
    ...(mend ? [`${indent}${colors.bold('→')} ${printable(mend)}`] : []),
  ];
}

function summary(findings: Finding[]): string {
  const degraded = findings.filter(({ state }) => state === 'degraded').length;
  if (degraded === 0) return 'Everything that this machine has is used.';
  return `Everything works; ${degraded} of ${findings.length} could be better (→ says how).`;
}

export function addDoctor(root: Command): void {
  root
    .command('doctor')
    .description('what this machine offers to transfers, what is missing and why, and how to mend it')
    .option('--rdma', 'look at every RDMA NIC, and let each write to itself')
    .option('--strict', 'exit with 1 where something is degraded')
    .option('--root <folder>', "read /proc and /sys below it: a host's files, mounted in a container", '/')
    .option('--json', 'print one JSON object')
    .action(async ({ rdma, strict, root: folder, json }: { rdma?: true; strict?: true; root: string; json?: true }) => {
      const report = await examine(folder, rdma);
      const width = Math.max(...report.findings.map(({ topic }) => topic.length));
      const text = json
        ? JSON.stringify(report)
        : [...report.findings.flatMap((finding) => lines(finding, width)), '', summary(report.findings)].join('\n');
      process.stdout.write(`${text}\n`);
      if (strict && report.findings.some(({ state }) => state === 'degraded')) process.exitCode = 1;
    });
}
