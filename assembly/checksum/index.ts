export * from './crc64';
