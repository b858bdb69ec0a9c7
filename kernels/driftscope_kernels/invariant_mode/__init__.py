"""Run a transformers model on our kernels, forward and backward, for the length of a block."""

from driftscope_kernels.invariant_mode.coverage import Coverage
from driftscope_kernels.invariant_mode.mode import InvariantMode, invariant_mode
from driftscope_kernels.invariant_mode.refusal import InvariantModeError

__all__ = ["Coverage", "InvariantMode", "InvariantModeError", "invariant_mode"]
