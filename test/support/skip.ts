/** Marks a test as skipped in the lane's output, with the reason and the command that enables it. */
interface Skippable {
  skip(name: string, body: () => void): void;
}

export function skip(test: Skippable, name: string, reason: string, enable: string): void {
  console.log(`SKIP ${name}: ${reason}; to enable: ${enable}`);
  test.skip(name, () => {});
}
