// Notices when the machine stands still, as virtual machines do while they are moved or starved by their host: wall-clock
// time passes, this process gets none of it, and every deadline of a test that is under way runs out at once.
const TICK_MS = 100;
const STALL_MS = 1500;

/** Watches until `stop()`, which gives the milliseconds during which the machine stood still. */
export function watchStalls() {
  let total = 0;
  let last = performance.now();
  let cpu = process.cpuUsage();
  const tick = () => {
    const now = performance.now();
    const used = process.cpuUsage(cpu);
    // A process that was busy itself was not stopped; a late tick of a busy process is no stall.
    const lost = now - last - TICK_MS - (used.user + used.system) / 1000;
    if (lost > STALL_MS) total += lost;
    last = now;
    cpu = process.cpuUsage();
  };
  const timer = setInterval(tick, TICK_MS);
  return {
    stop() {
      tick();
      clearInterval(timer);
      return total;
    },
  };
}
