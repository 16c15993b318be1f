export * from './allocator';
