"""vLLM's KV connectors for the mooncake-ts node service. Named by `kv_connector_module_path: mooncake_ts_vllm`."""

from .connector import MooncakeConnector, MooncakeStoreConnector, MultiConnector

__all__ = ["MooncakeConnector", "MooncakeStoreConnector", "MultiConnector"]
__version__ = "0.1.0"
