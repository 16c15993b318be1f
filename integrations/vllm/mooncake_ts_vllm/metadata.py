"""What the scheduler half sends to the workers with each step."""

from __future__ import annotations

from dataclasses import dataclass, field

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata


@dataclass
class StepMetadata(KVConnectorMetadata):
    """One step's work. The service made `meta`; the rest is what a worker must know where the service is gone."""

    # The service's own, for the worker halves; None where they have nothing to do.
    meta: bytes | None = None
    # Requests whose blocks were taken from them since the last step.
    preempted: list[str] = field(default_factory=list)
    # Asynchronous loads that begin with this step: blocks to fill, by request id and group.
    loads: dict[str, list[list[int]]] = field(default_factory=dict)
    # Blocks that this step loads before it computes.
    sync_blocks: list[int] = field(default_factory=list)
    # The scheduler half has lost the service: what workers have under way with it has ended too.
    lost: bool = False
    # Ended requests whose blocks were kept for the service that is lost.
    release: list[str] = field(default_factory=list)
    # Something is under way whose end the scheduler waits for.
    waiting: bool = False
