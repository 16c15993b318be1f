"""vLLM's own MooncakeConnector on a machine without an accelerator: kv_connector "CpuMooncakeConnector",
kv_connector_module_path "mooncake_cpu". Of vLLM 0.32 one call stands in the way, which asks for the accelerator's index and
fails where there is none; the CPU platform makes no use of the answer."""

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.mooncake import mooncake_connector


class CpuMooncakeConnector(mooncake_connector.MooncakeConnector):
    def __init__(self, vllm_config, role, kv_cache_config=None):
        if not torch.accelerator.is_available():
            torch.accelerator.current_device_index = lambda: 0
        super().__init__(vllm_config, role, kv_cache_config)
