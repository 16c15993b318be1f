"""vLLM's own MooncakeConnector on a machine without an accelerator. Of vLLM 0.32 one call stands in the way, which asks for the
accelerator's index and fails where there is none; the CPU platform makes no use of the answer."""

import torch


def patch():
    """In every process of an engine, before its connector is made."""
    if not torch.accelerator.is_available():
        torch.accelerator.current_device_index = lambda: 0
