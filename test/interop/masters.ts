/** The interop lane's tests find them here; other lanes start masters too. */
export * from '../support/masters.js';
