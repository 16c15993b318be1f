// The bytes of core.wasm. The build replaces this module's output with one that carries them, so that one file works
// in every bundler; the types stay.
const binary: Uint8Array | WebAssembly.Module = new Uint8Array(0);
export default binary;
