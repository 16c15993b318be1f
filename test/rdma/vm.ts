/**
 * Runs a test file in a virtual machine with soft-RoCE NICs (run-rdma-vm.sh), which sees this machine's files as they are. Its
 * output is this one's, summary included.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export function runInVm(file: string, nics: number, seconds = 240): void {
  const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
  const child = spawn(
    here('./run-rdma-vm.sh'),
    [
      '--nics',
      `${nics}`,
      '--timeout',
      `${seconds}`,
      '--',
      process.execPath,
      '--enable-source-maps',
      here(`./guest/${file}`),
    ],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  child.once('exit', (code) => {
    process.exitCode = code ?? 1;
  });
}
