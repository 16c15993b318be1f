import { runInVm } from './vm.js';

runInVm('shares.js', 8);
