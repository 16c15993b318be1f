// Our engines on both sides, with up to four NICs each.
import { runInVm } from './vm.js';

runInVm(['rails.js', 'shares.js', 'faults.js'], 8);
