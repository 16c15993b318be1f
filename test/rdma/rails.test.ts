import { runInVm } from './vm.js';

runInVm('rails.js', 8);
