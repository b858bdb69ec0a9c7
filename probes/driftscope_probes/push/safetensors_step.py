"""A safetensors file in the push format → PushedStep; packed or padded.

In: a path. Out: PushedStep with half precision widened and padding removed, or PushError.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.push_error import PushError
from driftscope_probes.push.pushed_step import PushedStep, as_mask, pushed_step
from driftscope_probes.push.response_span import response_span
from driftscope_probes.push.safetensors_header import StoredTensor, read_header
from driftscope_probes.push.step_layout import StepLayout, step_layout
from driftscope_probes.push.tensor_rules import RULES, STORED_AS
from driftscope_probes.push.widening import widened


def read_safetensors_step(path: Path) -> PushedStep:
    """The whole header is checked before any tensor is read. Peak memory: three times the file."""
    with path.open("rb") as stream:
        header = read_header(stream)
        layout = step_layout(header.tensors)
        tensors = {name: _read(stream, tensor) for name, tensor in header.tensors.items()}
    return pushed_step(_packed(tensors, layout) if layout.padded else tensors, header.metadata)


def _read(stream: BinaryIO, tensor: StoredTensor) -> NDArray[Any]:
    stream.seek(tensor.begin)
    values = np.fromfile(stream, dtype=STORED_AS[tensor.dtype], count=tensor.elements)
    if values.size != tensor.elements:
        raise PushError(
            f"it ends within {tensor.name}: it was shortened while it was read.",
            remedy="send it again when it is complete.",
        )
    shaped = values.reshape(tensor.shape)
    if tensor.name in ("rollout_logprobs", "trainer_logprobs"):
        return widened(shaped, tensor.dtype)
    return shaped


def _packed(tensors: dict[str, NDArray[Any]], layout: StepLayout) -> dict[str, NDArray[Any]]:
    """[sequences, longest, …] → [tokens, …] from each row's first to its last unmasked token."""
    rows, longest = layout.token_shape
    limits = np.arange(rows + 1, dtype=np.int64) * longest
    span = response_span(as_mask(tensors["mask"]).reshape(-1), limits)
    packed = {
        name: tensor.reshape(rows * longest, *tensor.shape[2:])[span.keep]
        if RULES[name].per == "token"
        else tensor
        for name, tensor in tensors.items()
    }
    return {**packed, "cu_seqlens": span.cu_seqlens}
