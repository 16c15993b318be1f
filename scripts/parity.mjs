// The lane `docs`: docs/parity.md says of each flag, variable and key which tests use it. Here the tests are looked up: each
// must be there, in a lane, under the title that the table gives.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { LANES } from './lanes.mjs';
import { root } from './steps.mjs';

const TABLE = 'docs/parity.md';
/** `test/cli/x.test.ts` "title", in the last cell of a row. */
const TEST = /`(test\/[^`]+\.test\.ts)` "([^"]+)"/g;

/** What is wrong with the named test; undefined where it is there. */
function problem(file, title) {
  const path = join(root, file);
  if (!existsSync(path)) return `there is no ${file}`;
  const lane = Object.values(LANES).find(({ folders }) => folders?.includes(dirname(file)));
  if (!lane) return `${file} is in no lane`;
  // A title's text is a literal, or a template of which the table gives a part without placeholders.
  const titles = [...readFileSync(path, 'utf8').matchAll(/\b(?:\w*[tT]est|with\w+)\(\s*(['"`])((?:\\.|(?!\1).)*)\1/gs)];
  const known = titles.map(([, , text]) => text.replace(/\\(.)/g, '$1'));
  return known.some((text) => text.includes(title)) ? undefined : `${file} has no test "${title}"`;
}

export default function check() {
  const text = readFileSync(join(root, TABLE), 'utf8');
  const problems = [];
  let passed = 0;
  for (const [at, line] of text.split('\n').entries()) {
    const cells = line.split('|').slice(1, -1);
    if (cells.length === 0 || /^[\s:|-]*$/.test(line) || cells[0].trim() === 'what') continue;
    const tests = [...cells.at(-1).matchAll(TEST)];
    const found = tests.map(([, file, title]) => problem(file, title)).filter((one) => one !== undefined);
    if (tests.length === 0) found.push('names no test');
    for (const one of found) problems.push(`${TABLE}:${at + 1}: ${one}`);
    if (found.length === 0) passed++;
  }
  if (passed === 0) problems.push(`${TABLE} has no row`);
  for (const one of problems) process.stderr.write(`  ${one}\n`);
  return { passed, failed: problems.length, skipped: 0 };
}
