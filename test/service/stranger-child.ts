/** Attaches to the service whose socket it is given, and prints what comes of it. */
import { type MooncakeError, ServiceConnector } from 'mooncake-ts';

const connector = new ServiceConnector({ socket: process.argv[2], connector: { kind: 'store' } });
try {
  connector.createScheduler({ engineId: 'e', model: 'm', role: 'both', hash: { blockSize: 8, seed: '0' } });
  console.log('attached');
} catch (error) {
  const { code, message } = error as MooncakeError;
  console.log(code, message);
}
process.exit();
