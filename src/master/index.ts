export { type ErrorCode, MooncakeError } from '../core/errors.js';
