"""Attention: what its own axes vary, and the faults that show on them alone."""

from __future__ import annotations

import pytest
import torch

from driftscope_kernels.check import planted
from driftscope_kernels.check.cases.case import CANCELLING, NORMAL, Shape
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.placements.placement import Placement, run, thread_count
from driftscope_kernels.check.search import Trial, search
from driftscope_kernels.registry import Kernel
from driftscope_kernels.targets import driftscope

OURS = {k.op: k for k in driftscope.kernels() if k.implementation == "cpu"}
FAULTS = {(k.op, k.implementation): k for k in planted.kernels()}
OF_ATTENTION = {"query_chunk", "context", "page_order", "page_size", "padding"}


def _differing(kernel: Kernel, kind: str) -> set[str]:
    case = op_case(kernel.op)
    trial = Trial(case.quick_shapes[0], torch.float32, kind, 0, 3)
    with thread_count(1):
        return {found.axis for found in search(kernel, case, trial).mismatches}


@pytest.mark.parametrize(
    ("fault", "axes"),
    [
        ("query_tile", {"query_chunk", "context"}),
        ("tile_from_query", {"query_chunk", "context"}),
        ("split_by_context", {"context"}),
        ("padding_leak", {"padding"}),
    ],
)
def test_a_fault_of_a_prompt_shows_on_its_axes_alone(fault: str, axes: set[str]) -> None:
    kernel = FAULTS["attention_prefill", fault]
    found = _differing(kernel, CANCELLING) | _differing(kernel, NORMAL)
    assert found == axes


@pytest.mark.parametrize("fault", ["page_order", "page_size", "padding_leak"])
def test_a_fault_of_the_cache_shows_on_its_axis_alone(fault: str) -> None:
    kernel = FAULTS["attention", fault]
    axis = "padding" if fault == "padding_leak" else fault
    assert _differing(kernel, CANCELLING) | _differing(kernel, NORMAL) == {axis}


@pytest.mark.parametrize("op", ["attention", "attention_prefill"])
def test_ours_are_tried_on_every_axis_of_attention(op: str) -> None:
    case = op_case(op)
    trial = Trial(case.quick_shapes[0], torch.float32, NORMAL, 0, 2)
    with thread_count(1):
        counts = search(OURS[op], case, trial).counts
    tried = {count.axis for count in counts if count.trials}
    assert tried >= (OF_ATTENTION if op == "attention_prefill" else OF_ATTENTION - _OF_PROMPTS)
    assert not any(count.mismatches for count in counts)


_OF_PROMPTS = {"query_chunk", "context"}


@pytest.mark.parametrize("context", [1, 16, 33, 64, 65])
@pytest.mark.parametrize("query", [None, 1, 7])
def test_a_chunk_in_the_middle_of_a_prompt_has_the_bits_of_the_whole(
    context: int, query: int | None
) -> None:
    batch = Trial(Shape(100, 64), torch.bfloat16, NORMAL, 1, 2).batch(op_case("attention_prefill"))
    whole = run(OURS["attention_prefill"], batch, Placement(2))[:, :context]
    placement = Placement(2, context=context, query=query, padding="nan", page_order=1)
    part = run(OURS["attention_prefill"], batch, placement)
    assert part.shape[1] == min(query or context, context)
    assert torch.equal(part, whole[:, -part.shape[1] :])
