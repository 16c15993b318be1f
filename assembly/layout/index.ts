export * from './expand';
