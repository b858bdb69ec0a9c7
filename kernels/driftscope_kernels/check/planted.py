"""Kernels with a planted fault each. A check that does not refute every one of them is blind.

Out: Kernel objects of the target "planted"; they are not in the registry.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.check.placements.placement import special_value
from driftscope_kernels.check.twins.ordered_ops import CUT, PLAIN, SHUFFLED
from driftscope_kernels.check.twins.reassociated import (
    DTYPES,
    GRADIENT_OPS,
    TOKEN_FACTORS,
    TOKEN_INPUTS,
    compute,
    weight_gradient,
)
from driftscope_kernels.registry import Kernel

TARGET = "planted"
#: The fault that shows in fresh processes only.
OF_PROCESS = "process_order"
LOW_PRECISION = frozenset({torch.bfloat16})

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]
Fault = Callable[[str, Inputs, Params], Tensor]


def split_k_by_batch(op: str, inputs: Inputs, params: Params) -> Tensor:
    """Few rows leave cores idle, so the reduction is cut in parts: what GPU GEMMs do."""
    return compute(op, inputs, params, "split_4" if len(inputs["x"]) <= 4 else PLAIN)


def block_by_batch(op: str, inputs: Inputs, params: Params) -> Tensor:
    """The block along the reduction is tuned for the batch size."""
    return compute(op, inputs, params, "split_8" if len(inputs["x"]) >= 16 else "split_2")


def one_row_path(op: str, inputs: Inputs, params: Params) -> Tensor:
    """A matrix-vector path for a batch of one."""
    return compute(op, inputs, params, "interleaved" if len(inputs["x"]) == 1 else PLAIN)


def random_order(op: str, inputs: Inputs, params: Params) -> Tensor:
    """Atomic additions: the order is who comes first."""
    return compute(op, inputs, params, random.choice((PLAIN, "reverse", "split_4")))


def row_position(op: str, inputs: Inputs, params: Params) -> Tensor:
    """One row of every eight is computed by another path."""
    rows = torch.arange(len(inputs["x"]))
    plain, other = (compute(op, inputs, params, how) for how in (PLAIN, "reverse"))
    return torch.where((rows % 8 == 3).view(-1, *[1] * (plain.ndim - 1)), other, plain)


def neighbour_leak(op: str, inputs: Inputs, params: Params) -> Tensor:
    """Padding by multiplication with a mask: 0 · NaN of a neighbour is NaN."""
    result = compute(op, inputs, params, PLAIN)
    return result + (inputs["x"].float().sum() * 0).to(result.dtype)


def batch_scale(op: str, inputs: Inputs, params: Params) -> Tensor:
    """One scale for the whole batch, as dynamic quantisation per tensor has."""
    x = inputs["x"].float()
    scale = x.abs().amax() / 448
    rounded = ((x / scale).round() * scale).to(inputs["x"].dtype)
    return compute(op, {**inputs, "x": rounded}, params, PLAIN)


def layout_path(op: str, inputs: Inputs, params: Params) -> Tensor:
    return compute(op, inputs, params, PLAIN if inputs["x"].is_contiguous() else "reverse")


def thread_split(op: str, inputs: Inputs, params: Params) -> Tensor:
    """Every thread sums a part."""
    return compute(op, inputs, params, PLAIN if torch.get_num_threads() == 1 else "split_2")


def raw_bit_add(op: str, inputs: Inputs, params: Params) -> Tensor:
    """bf16 added as integers (the Triton 3.9 interpreter does): invariant, and garbage."""
    result = compute(op, inputs, params, PLAIN)
    return (result.view(torch.int16) + result.view(torch.int16)).view(torch.bfloat16)


def query_tile(op: str, inputs: Inputs, params: Params) -> Tensor:
    """Tiles of the context chosen by the number of query tokens."""
    return compute(op, inputs, params, "split_4" if inputs["x"].shape[1] < 32 else PLAIN)


def tile_from_query(op: str, inputs: Inputs, params: Params) -> Tensor:
    """Tiles of the context counted from the first query of the call, not from position 0."""
    first = inputs["key"].shape[1] - inputs["x"].shape[1]
    return compute(op, inputs, params, f"{CUT}{first}" if first else PLAIN)


def split_by_context(op: str, inputs: Inputs, params: Params) -> Tensor:
    """The context is split by its length, so that a chunk of a prompt meets other parts."""
    return compute(op, inputs, params, "split_2" if inputs["key"].shape[1] > 70 else PLAIN)


def padding_leak(op: str, inputs: Inputs, params: Params) -> Tensor:
    """Slots behind the context weigh 0 instead of being left out: 0 · NaN is NaN."""
    result = compute(op, inputs, params, PLAIN)
    padding = params["padding"]
    return result + (special_value(padding, result.dtype) * 0 if padding else 0)


def page_order(op: str, inputs: Inputs, params: Params) -> Tensor:
    """Walks through the pages as they lie in memory."""
    return compute(op, inputs, params, "reverse" if params["page_order"] else PLAIN)


def page_size(op: str, inputs: Inputs, params: Params) -> Tensor:
    return compute(op, inputs, params, "split_8" if params["page_size"] > 32 else PLAIN)


def process_order(op: str, inputs: Inputs, params: Params) -> Tensor:
    """Terms in the order of a hash table whose seed every process draws anew."""
    return compute(op, inputs, params, f"{SHUFFLED}{hash('weight') % 2**31}")


def constant_layout(op: str, inputs: Inputs, params: Params) -> Tensor:
    """A transposed weight takes another path."""
    return compute(op, inputs, params, PLAIN if inputs["weight"].is_contiguous() else "reverse")


def split_by_tokens(op: str, inputs: Inputs, params: Params) -> Tensor:
    """A weight gradient whose split is chosen by the tokens of the micro-batch."""
    return weight_gradient(op, inputs, params, lambda _, blocks: PLAIN if blocks > 4 else "split_2")


def micro_batch_sums(op: str, inputs: Inputs, params: Params) -> Tensor:
    """Every micro-batch summed on its own first, then added up: what autograd does."""
    tokens, size = len(inputs["x"]), params["micro_batch"] or len(inputs["x"])
    names = [name for name in TOKEN_INPUTS if name in inputs]
    cuts = [{n: inputs[n][s : s + size] for n in names} for s in range(0, tokens, size)]
    whole = {**params, "micro_batch": None}
    return torch.stack([compute(op, {**inputs, **cut}, whole, PLAIN) for cut in cuts]).sum(0)


WEIGHT_GRADIENTS = tuple(TOKEN_FACTORS)
#: Attention's take seconds each and have a fault of their own.
ROW_GRADIENTS = tuple(
    op for op in GRADIENT_OPS if op not in (*TOKEN_FACTORS, "attention_prefill.grad")
)
SUMS = ("linear", "bmm", "softmax", "log_softmax", "rms_norm", "mean", "attention")
FAULTS: tuple[tuple[Fault, tuple[str, ...]], ...] = (
    (split_k_by_batch, (*SUMS, "attention_prefill", *ROW_GRADIENTS)),
    (block_by_batch, SUMS),
    (one_row_path, ("attention_prefill.grad",)),
    (one_row_path, SUMS),
    (random_order, ("linear", "rms_norm", "attention")),
    (row_position, SUMS),
    (neighbour_leak, ("linear", "softmax", "rms_norm", "swiglu")),
    (batch_scale, ("linear",)),
    (layout_path, ("linear", "softmax", "mean")),
    (thread_split, ("linear", "mean")),
    (process_order, ("linear",)),
    (constant_layout, ("linear",)),
    (split_by_tokens, WEIGHT_GRADIENTS),
    (micro_batch_sums, WEIGHT_GRADIENTS),
    (query_tile, ("attention_prefill",)),
    (tile_from_query, ("attention_prefill",)),
    (split_by_context, ("attention_prefill",)),
    (padding_leak, ("attention", "attention_prefill")),
    (page_order, ("attention",)),
    (page_size, ("attention",)),
)


def kernels() -> Iterator[Kernel]:
    for fault, ops in FAULTS:
        for op in ops:
            yield _planted(fault, op, DTYPES)
    yield _planted(raw_bit_add, "linear", LOW_PRECISION)


def _planted(fault: Fault, op: str, dtypes: frozenset[torch.dtype]) -> Kernel:
    def run(inputs: Inputs, params: Params) -> Tensor:
        return fault(op, inputs, params)

    note = (fault.__doc__ or fault.__name__.replace("_", " ")).splitlines()[0]
    return Kernel(TARGET, op, fault.__name__, run, dtypes, note)
