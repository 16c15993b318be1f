/** Whether the ports that Mooncake's services have by default can be had. */
import { createServer } from 'node:net';
import type { Finding } from './finding.js';

const PORTS = {
  50051: 'the master',
  9003: "the master's metrics",
  8080: 'the metadata server or the REST API of a store node',
};

/** The code of the error with which listening failed; undefined where it did not. */
function refusal(port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

export function ports(): Promise<Finding[]> {
  return Promise.all(
    Object.entries(PORTS).map(async ([port, service]): Promise<Finding> => {
      const code = await refusal(Number(port));
      const topic = `port ${port}`;
      if (code === undefined) return { topic, state: 'ok', found: `free on 127.0.0.1, for ${service}` };
      const found = code === 'EADDRINUSE' ? 'in use on 127.0.0.1' : `cannot be had on 127.0.0.1: ${code}`;
      return {
        topic,
        state: 'note',
        found,
        means: `${service} runs there already, or needs another port (--port; --metrics_port)`,
      };
    }),
  );
}
