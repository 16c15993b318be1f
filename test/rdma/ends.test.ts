// Peers that end, or are others than ours, and what is refused.
import { runInVm } from './vm.js';

runInVm(['outages.js', 'stock.js', 'limits.js', 'mtu.js', 'doctor.js'], 4);
