"""Which kernels a vLLM process is asked to run: environment variables. Free of torch and vllm.

Who starts an engine sets them; `vllm_plugin.register` reads them in the engine's process.
"""

from __future__ import annotations

import os
from typing import Literal

Kernels = Literal["stock", "invariant"]

VARIABLE = "DRIFTSCOPE_VLLM_KERNELS"
#: Where those kernels round: `vllm_plugin.rounding` has its values.
ROUNDING_VARIABLE = "DRIFTSCOPE_VLLM_ROUNDING"
STOCK: Kernels = "stock"
INVARIANT: Kernels = "invariant"


class KernelChoiceError(ValueError):
    """A choice of kernels that does not exist, or that this vLLM cannot take."""


def asked() -> Kernels:
    """What the environment asks for. Raises KernelChoiceError."""
    value = os.environ.get(VARIABLE) or STOCK
    if value == STOCK:
        return STOCK
    if value == INVARIANT:
        return INVARIANT
    raise KernelChoiceError(f"{VARIABLE} = {value!r}: choose {STOCK} or {INVARIANT}")
