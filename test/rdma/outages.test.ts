import { runInVm } from './vm.js';

runInVm('outages.js', 4);
