// The virtual machine's parts: QEMU and what makes its image, from the system's packages, and a kernel that has soft-RoCE, which
// run-rdma-vm.sh fetches once (some 400 MB below the cache folder, RDMA_VM_CACHE). And the stock engine, as the lane interop has it.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { find, installInCi } from '../../scripts/native-tools.mjs';
import { root, step } from '../../scripts/steps.mjs';
import stockEngine from '../interop/setup.mjs';

const VM = join(root, 'test', 'rdma', 'run-rdma-vm.sh');
const COMMANDS = ['qemu-system-x86_64', 'busybox', 'cpio', 'ip', 'rdma'];

/** {env} for the lane's tests, or {skip, enable}. */
export default async function prepare() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    return { skip: `this is ${process.platform} on ${process.arch}`, enable: 'run it on Linux on x86-64' };
  }
  const packages = execFileSync(VM, ['--packages'], { encoding: 'utf8' }).trim().split(' ');
  await installInCi(...packages);
  const lacking = COMMANDS.filter((command) => !find(command));
  if (lacking.length > 0) {
    return { skip: `${lacking.join(', ')} not found`, enable: `apt-get install ${packages.join(' ')}` };
  }
  await step('lane rdma: the virtual machine', VM, ['--fetch']);
  return stockEngine();
}
