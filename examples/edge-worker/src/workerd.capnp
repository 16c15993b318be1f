# workerd serve src/workerd.capnp, after `npm run build`. The variables come from the environment.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "router", worker = (
      compatibilityDate = "2026-01-01",
      modules = [
        (name = "worker.js", esModule = embed "../build/worker.js"),
        (name = "core.wasm", wasm = embed "../build/core.wasm"),
      ],
      bindings = [
        (name = "SNAPSHOT_URL", fromEnvironment = "SNAPSHOT_URL"),
        (name = "SNAPSHOT_TTL", fromEnvironment = "SNAPSHOT_TTL"),
        (name = "INSTANCES", fromEnvironment = "INSTANCES"),
        (name = "HASH", fromEnvironment = "HASH"),
      ],
    )),
    # Where the worker's own fetch() may go: here the engines of a private network too.
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true))),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8787", http = (), service = "router")],
);
