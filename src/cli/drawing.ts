/** `--plot FILE.svg` of the commands that draw what they print. */
import { writeFileSync } from 'node:fs';
import { errors } from '../core/errors.js';
import { printable } from './printable.js';

/** A drawing replaces the file, so that no other file is taken for it. */
export function drawingName(text: string): string {
  if (!/\.svg$/i.test(text)) throw errors.invalidArgument('--plot', text, 'a file name that ends in .svg');
  return text;
}

export function writeDrawing(path: string, svg: string): void {
  try {
    writeFileSync(path, svg);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw errors.invalidArgument('--plot', path, `a file that can be written (${code})`);
  }
  process.stderr.write(`drawing written to ${printable(path)}\n`);
}
