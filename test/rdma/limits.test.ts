import { runInVm } from './vm.js';

runInVm('limits.js', 4);
