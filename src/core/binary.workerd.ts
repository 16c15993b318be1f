// workerd forbids compiling WASM from bytes: there the core arrives as a compiled module of its own.
// @ts-expect-error: resolved by workerd, which gives a WebAssembly.Module for a .wasm import
import module from '../../core.wasm';

const binary: Uint8Array | WebAssembly.Module = module;
export default binary;
