// Python environments of test lanes, below build/.
import { execFileSync } from 'node:child_process';

/** A Python of 3.10 or later with venv, or undefined. */
export function findPython() {
  const probe = 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))';
  return ['python3', 'python3.11', 'python3.12', 'python3.13', 'python'].find((name) => {
    try {
      execFileSync(name, ['-c', probe], { stdio: 'ignore', timeout: 20_000 });
      return true;
    } catch {
      return false;
    }
  });
}

/** Arguments of a Python for its pip. */
export const PIP = ['-m', 'pip', '--disable-pip-version-check', '-q'];
