"""Run a transformers model on our kernels, forward and backward, for the length of a block."""

from driftscope_kernels.invariant_mode.aten_ops import InvariantModeError
from driftscope_kernels.invariant_mode.mode import Coverage, InvariantMode, invariant_mode

__all__ = ["Coverage", "InvariantMode", "InvariantModeError", "invariant_mode"]
