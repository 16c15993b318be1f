import { runInVm } from './vm.js';

runInVm('faults.js', 8);
