"""vLLM with driftscope's batch-invariant kernels: entry point of the group vllm.general_plugins.

In: the environment variable DRIFTSCOPE_VLLM_KERNELS. Out: nothing where it is unset or "stock";
with "invariant" vLLM's layers are routed to ours. Imports neither torch nor vllm until then.
"""

from __future__ import annotations

import os
from typing import Literal

Kernels = Literal["stock", "invariant"]

VARIABLE = "DRIFTSCOPE_VLLM_KERNELS"
STOCK: Kernels = "stock"
INVARIANT: Kernels = "invariant"


class KernelChoiceError(ValueError):
    """A choice of kernels that does not exist, or that this vLLM cannot take."""


def register() -> None:
    """Called by vLLM in each of its processes, perhaps more than once."""
    if asked() == STOCK:
        return
    from driftscope_kernels.vllm_plugin.install import install

    install()


def asked() -> Kernels:
    """What the environment asks for. Raises KernelChoiceError."""
    value = os.environ.get(VARIABLE) or STOCK
    if value == STOCK:
        return STOCK
    if value == INVARIANT:
        return INVARIANT
    raise KernelChoiceError(f"{VARIABLE} = {value!r}: choose {STOCK} or {INVARIANT}")
