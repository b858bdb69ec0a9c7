"""Request of a fingerprint: whose arithmetic is read. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import Field, field_validator

from driftscope_probes.request_model import RequestModel

HOST: Final = "cpu"
PREFIX: Final = "simulated:"
#: As asked for, and as the simulator has them.
ARCHITECTURES: Final[Mapping[str, str]] = {
    "volta": "Volta",
    "turing": "Turing",
    "ampere": "Ampere",
    "ada": "Ada Lovelace",
    "hopper": "Hopper",
    "blackwell": "Blackwell",
    "rtx-blackwell": "RTX Blackwell",
    "cdna1": "CDNA1",
    "cdna2": "CDNA2",
    "cdna3": "CDNA3",
}
DEVICES: Final = (HOST, *(PREFIX + name for name in ARCHITECTURES))


class FingerprintRequest(RequestModel):
    """What this machine's sums do, or those of a device that is simulated bit by bit."""

    device: str = Field(HOST, max_length=50, description="cpu, or simulated:NAME such as hopper")

    @field_validator("device")
    @classmethod
    def _known(cls, device: str) -> str:
        if device not in DEVICES:
            raise ValueError(f"there is no such device; there are {', '.join(DEVICES)}")
        return device
