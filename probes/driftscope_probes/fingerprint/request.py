"""Request of a fingerprint: whose arithmetic is read. Free of torch."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from driftscope_probes.request_model import RequestModel

HOST: Final = "cpu"


class FingerprintRequest(RequestModel):
    """What this machine's sums do, or those of a device that is simulated bit by bit."""

    device: str = Field(
        HOST, min_length=1, max_length=50, description="cpu, or simulated:NAME such as hopper"
    )
