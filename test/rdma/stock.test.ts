import { runInVm } from './vm.js';

runInVm('stock.js', 4);
