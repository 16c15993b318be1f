// The few types used of playwright-core, which is installed in the lane's folder only (../runtimes/package.json).
declare module 'playwright-core' {
  export interface Page {
    goto(url: string): Promise<unknown>;
    evaluate<Argument, Result>(
      work: (argument: Argument) => Result | Promise<Result>,
      argument: Argument,
    ): Promise<Result>;
    on(event: 'pageerror', listener: (error: Error) => void): void;
  }
  export interface Browser {
    newPage(): Promise<Page>;
    close(): Promise<void>;
  }
  export const chromium: {
    launch(options: { executablePath?: string; chromiumSandbox?: boolean; args?: string[] }): Promise<Browser>;
  };
}
