"""Why two placements give other bits: by the axis, and by how the trees of both differ.

In: kernel, case, the Mismatch as it was found (before shrinking). Out: Cause.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from driftscope_kernels.check.cases.case import OpCase
from driftscope_kernels.check.cases.inputs import NORMAL
from driftscope_kernels.check.placements.axes import FRESH_PROCESS, batch_sizes
from driftscope_kernels.check.placements.placement import Placement, thread_count
from driftscope_kernels.check.search import ACCURACY, Mismatch, compare
from driftscope_kernels.check.tree_probe import can_read, subtree_sizes
from driftscope_kernels.registry import Kernel

M_REMAINDER, GEMV, SPLIT_K, SPLIT_KV = "M-remainder path", "gemv path", "split-K", "split-KV"
THREADS, LAYOUT = "thread split", "layout"
BY_AXIS = {
    ACCURACY: "wrong result",
    "run_to_run": "run to run",
    FRESH_PROCESS: "process state",
    "neighbours": "neighbour content",
    "layout": LAYOUT,
    "threads": THREADS,
    "query_chunk": "query tile",
    "context": "context length",
    "padding": "padding content",
    "page_order": "page order",
    "micro_batch": "micro-batch split",
    "page_size": "page size",
    "position": "row position",
    "permutation": "row position",
}
ATTENTION = ("attention", "attention_prefill", "sdpa", "sdpa_prefill")
#: Shorter runs of leaves are the lanes of a vector, not blocks.
LEAST_BLOCK = 8


@dataclass(frozen=True, slots=True)
class Cause:
    name: str
    evidence: str


def cause(kernel: Kernel, case: OpCase, found: Mismatch) -> Cause:
    if found.axis in BY_AXIS:
        return Cause(BY_AXIS[found.axis], f"shows on the axis {found.axis}")
    trees = _tree_difference(kernel, case, found)
    if case.op in ATTENTION:
        return trees or Cause(SPLIT_KV, "the weights are summed in other parts of the context")
    if torch.get_num_threads() > 1 and _gone_with_one_thread(kernel, case, found):
        return Cause(THREADS, "with one thread the bits are equal")
    if trees is not None:
        return trees
    differing = _differing_sizes(kernel, case, found)
    if not differing:  # a part of a batch, behind others
        return Cause(M_REMAINDER, f"parts of {found.right.chunk} rows differ from the whole")
    if differing == [1]:
        return Cause(GEMV, f"of the batch sizes tried only 1 differs from {found.trial.rows}")
    shown = ", ".join(map(str, differing))
    return Cause(M_REMAINDER, f"batch sizes {shown} differ from {found.trial.rows}")


def block_length(sizes: list[int]) -> int | None:
    """Leaves per block, where the reduction is cut in consecutive blocks that meet as wholes.

    `sizes[j − 1]`: leaves of the smallest subtree with leaves 0 and j. None: one block.
    """
    leaves = len(sizes) + 1
    for block in range(LEAST_BLOCK, leaves // 2 + 1):
        inside, behind = sizes[: block - 1], sizes[block - 1 :]
        if max(inside) <= block and min(behind) >= block + min(block, leaves - block) > block + 1:
            return block
    return None


def _tree_difference(kernel: Kernel, case: OpCase, found: Mismatch) -> Cause | None:
    """split-K or split-KV where the blocks of the two placements differ in length."""
    trial = found.trial
    if not can_read(case.op, trial.dtype):
        return None
    params = case.build(trial.shape, 1, trial.dtype, NORMAL, 0).params
    sides = (found.left.chunk or found.left.count, found.right.chunk or found.right.count)
    blocks: list[int | None] = []
    for size in sides:
        sizes = subtree_sizes(
            kernel, case.op, trial.shape, trial.dtype, params, size, min(found.row, size - 1)
        )
        if sizes is None or len(sizes) < LEAST_BLOCK:
            return None
        blocks.append(block_length(sizes))
    if blocks[0] == blocks[1]:
        return None
    name = SPLIT_KV if case.op in ATTENTION else SPLIT_K
    shown = [
        f"{'one block' if block is None else f'blocks of {block}'} at batch size {size}"
        for block, size in zip(blocks, sides, strict=True)
    ]
    return Cause(name, f"the reduction runs in {' and '.join(shown)}")


def _gone_with_one_thread(kernel: Kernel, case: OpCase, found: Mismatch) -> bool:
    with thread_count(1):
        batch = found.trial.batch(case)
        again = compare(kernel, batch, found.axis, found.trial, found.left, found.right)
    return again is None


def _differing_sizes(kernel: Kernel, case: OpCase, found: Mismatch) -> list[int]:
    batch = found.trial.batch(case)
    whole = Placement(found.trial.rows)
    return [
        size
        for size in batch_sizes(whole.count)
        if size < whole.count
        and compare(kernel, batch, "batch_size", found.trial, whole, Placement(size)) is not None
    ]
