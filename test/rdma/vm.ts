/**
 * Runs test files in a virtual machine with soft-RoCE NICs (run-rdma-vm.sh), which sees this machine's files as they are, in one
 * process: to start one takes an emulated machine longer than most tests. Its output is this one's, summary included.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export function runInVm(files: string[], nics: number, seconds = 450): void {
  const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
  const imports = files.map((file) => `import '${here(`./guest/${file}`)}';`).join(' ');
  const node = [process.execPath, '--enable-source-maps', '--input-type=module', '-e', imports];
  const child = spawn(here('./run-rdma-vm.sh'), ['--nics', `${nics}`, '--timeout', `${seconds}`, '--', ...node], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  child.once('exit', (code) => {
    process.exitCode = code ?? 1;
  });
}
