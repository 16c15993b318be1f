export { hashChains } from './chain';
export { digest } from './digest';
export { sequenceHashes } from './sequence';
export { anyNegative } from './tokens';
