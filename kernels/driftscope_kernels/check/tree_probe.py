"""Reads the order in which a kernel adds, from outside, and compares it over batch sizes and rows.

Idea: FPRev (arXiv 2411.00442). Leaves i and j hold +big and −big, all others one. What is added to
big is swallowed until −big cancels it, so the result counts the leaves outside the smallest subtree
that holds both i and j. In: kernel, case, shape. Out: TreeReading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Generator, Tensor

from driftscope_kernels.check.cases.case import BMM_ROWS, HEADS, KV_HEADS, Shape
from driftscope_kernels.check.placements.axes import MICRO_BATCHES, batch_sizes
from driftscope_kernels.check.placements.placement import Batch, Params, Placement, run
from driftscope_kernels.compare_ops.trees import LOW_PRECISION_LEAVES, MASKS
from driftscope_kernels.registry import Kernel

#: A mean divides, and the count is read by rounding: in bf16 ±0.4 % of 100 is still below a half.
MEAN_LEAVES = 100
#: Pairs of leaves per window; half of them (0, j), half random.
PAIRS = 64
#: Every pair is read in this many output columns, where one call can hold a pair per column.
ROTATIONS = 4
#: Where an output has no columns, rows hold the pairs: 16 rows after each other the same one, so
#: that every row of a tile is compared, and the next call moves the pairs on by 16 rows.
ROW_BLOCK, ROW_CALLS, MOST_BLOCKS = 16, 12, 32
#: Windows that take leaves from all over K, in addition to the contiguous ones.
SPREAD_WINDOWS = 2
WHOLE_PROOF, PART_PROOF = "whole", "part"
#: Ops that take their tokens in micro-batches rather than their rows in batches.
MICRO_BATCHED = ("linear.grad_weight", "linear.grad_bias")
#: Ops whose terms are products, so that a factor lifts the smallest number of fp16.
PRODUCTS = (
    *("linear", "mm", "bmm"),
    *("linear.grad_x", "linear.grad_weight", "bmm.grad_x", "bmm.grad_weight"),
)
#: Ops that return one number per row, so that rows hold the pairs.
ONE_PER_ROW = ("sum", "mean", "mean_strided", "linear.grad_bias")
#: Ops of which the probe sees every addition; of attention it sees P·V only.
SCOPE: Mapping[str, str] = {
    **dict.fromkeys((*PRODUCTS, *ONE_PER_ROW), WHOLE_PROOF),
    **dict.fromkeys(("attention", "attention_prefill", "sdpa", "sdpa_prefill"), PART_PROOF),
}


@dataclass(frozen=True, slots=True)
class Question:
    """What one call asks: `pairs` index into `leaves`, one per output column (or block of rows)."""

    leaves: Tensor  # int64, positions along K
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class TreeReading:
    """`equal`: one tree for every batch size and row. None: the results were no counts."""

    equal: bool | None
    shape: Shape
    batch_sizes: tuple[int, ...]  # for a weight gradient: tokens per micro-batch
    pairs: int
    windows: int
    leaves: int  # in the largest window
    calls: int
    seconds: float
    where: tuple[int, int, int] | None  # batch size, row and question of the first other tree

    def to_dict(self) -> dict[str, object]:
        return {
            "k": self.shape.k,
            "n": self.shape.n,
            "batch_sizes": list(self.batch_sizes),
            "rows": "all",
            "pairs": self.pairs,
            "windows": self.windows,
            "leaves_per_window": self.leaves,
            "calls": self.calls,
            "seconds": round(self.seconds, 4),
        }


def can_read(op: str, dtype: torch.dtype) -> bool:
    # fp16: a mean, or a weight of 1/L, takes the smallest number below the range.
    return op in SCOPE and (dtype != torch.float16 or op in (*PRODUCTS, "sum", "linear.grad_bias"))


def read_trees(
    kernel: Kernel, op: str, shape: Shape, dtype: torch.dtype, params: Params, rows: int
) -> TreeReading:
    """Probe every batch size up to `rows` (of a weight gradient: every size of the micro-batches);
    all rows of a batch are read at once.
    """
    began = perf_counter()
    sizes = probed_sizes(op, shape, rows)
    questions = probe_questions(op, shape, dtype)
    where: tuple[int, int, int] | None = None
    calls, readable = 0, True
    known: dict[tuple[int, ...], int] = {}  # what other rows read of pairs that rows hold
    for number, question in enumerate(questions):
        batch = probe_batch(op, shape, dtype, params, question, rows)
        expected: Tensor | None = None
        for size in reversed(sizes):
            calls += 1
            result = run(kernel, batch, probed_placement(op, rows, size))
            counts = _counts(result, op, shape, dtype, len(question.leaves))
            if counts is None:
                readable = False
                break
            if expected is None:
                by_rows = columns(op, shape) == 1
                expected = _of_blocks(counts, question, known) if by_rows else counts[:1]
            row = _first_other_row(counts, expected)
            if row is not None and where is None:
                where = (size, row, number)
    windows = {tuple(question.leaves.tolist()) for question in questions}
    return TreeReading(
        equal=where is None if readable else None,
        shape=shape,
        batch_sizes=sizes,
        pairs=sum(len(set(question.pairs)) for question in questions),
        windows=len(windows),
        leaves=max(map(len, windows)),
        calls=calls,
        seconds=perf_counter() - began,
        where=where,
    )


def probed_sizes(op: str, shape: Shape, rows: int) -> tuple[int, ...]:
    if op in MICRO_BATCHED:
        return (*(size for size in MICRO_BATCHES if size < shape.k), shape.k)
    return tuple(sorted({*batch_sizes(rows), rows}))


def probed_placement(op: str, rows: int, size: int) -> Placement:
    return Placement(rows, micro_batch=size) if op in MICRO_BATCHED else Placement(size)


def _of_blocks(counts: Tensor, question: Question, known: dict[tuple[int, ...], int]) -> Tensor:
    """[rows]: for each row what the first row ever to hold its pair has read."""
    expected = torch.empty_like(counts)
    for block, start in enumerate(range(0, len(counts), ROW_BLOCK)):
        leaves = question.leaves[list(question.pairs[block])].tolist()
        window = (int(question.leaves[0]), int(question.leaves[-1]), len(question.leaves))
        read = known.setdefault((*window, *leaves), int(counts[start]))
        expected[start : start + ROW_BLOCK] = read
    return expected


def _first_other_row(counts: Tensor, expected: Tensor) -> int | None:
    other = counts != (expected if len(expected) == 1 else expected[: len(counts)])
    rows = other.reshape(len(counts), -1).any(dim=1).nonzero().flatten()
    return int(rows[0]) if len(rows) else None


def subtree_sizes(
    kernel: Kernel, op: str, shape: Shape, dtype: torch.dtype, params: Params, size: int, row: int
) -> list[int] | None:
    """For leaves j = 1, 2, … of the first window: leaves of the smallest subtree with 0 and j.

    Supposes that all output columns add in one order. None where it cannot be read.
    """
    leaves = next(leaf_windows(shape.k, _window_limit(op, dtype)))
    pairs = [(0, j) for j in range(1, len(leaves))]
    width = columns(op, shape)
    found: list[int] = []
    for start in range(0, len(pairs), width):
        part = pairs[start : start + width]
        filled = tuple(part + part[-1:] * ((MOST_BLOCKS if width == 1 else width) - len(part)))
        batch = probe_batch(op, shape, dtype, params, Question(leaves, filled), size)
        counts = _counts(run(kernel, batch, Placement(size)), op, shape, dtype, len(leaves))
        if counts is None:
            return None
        read = counts[row].reshape(-1)[: len(part)] if width > 1 else counts[row].reshape(-1)[:1]
        found.extend(len(leaves) - int(count) for count in read)
    return found


def leaf_windows(k: int, limit: int) -> Iterator[Tensor]:
    """Sets of at most `limit` positions along K that hold leaves; the others hold zero."""
    if k <= limit:
        yield torch.arange(k)
        return
    for start in range(0, k, limit):
        yield torch.arange(start, min(start + limit, k))
    for number in range(SPREAD_WINDOWS):
        yield torch.tensor(sorted({int(p) for p in torch.linspace(number, k - 1, limit)}))


def columns(op: str, shape: Shape) -> int:
    """Output columns that can hold a pair each in one call."""
    return 1 if op in ONE_PER_ROW else shape.n


def _window_limit(op: str, dtype: torch.dtype) -> int:
    if dtype == torch.float32:
        return int(2**22)  # counts are exact to 2²⁴
    return MEAN_LEAVES if op.startswith(("mean", "attention", "sdpa")) else LOW_PRECISION_LEAVES


def probe_questions(op: str, shape: Shape, dtype: torch.dtype) -> list[Question]:
    """All calls of a reading, in order; a counterexample names one by its number."""
    width = columns(op, shape)
    found = []
    for leaves in leaf_windows(shape.k, _window_limit(op, dtype)):
        if len(leaves) < 3:  # one addition has one order
            continue
        pairs = _pairs(len(leaves))
        slots, calls, step = (width, ROTATIONS, max(1, len(pairs) // ROTATIONS))
        if width == 1:
            slots, calls, step = MOST_BLOCKS, ROW_CALLS, 1
            pairs = _mixed(pairs)
        for number in range(calls):
            chosen = [pairs[(slot + number * step) % len(pairs)] for slot in range(slots)]
            found.append(Question(leaves, tuple(chosen)))
    return found


def _pairs(leaves: int) -> list[tuple[int, int]]:
    half = PAIRS // 2
    slices = [(0, j) for j in sorted({int(p) for p in torch.linspace(1, leaves - 1, half)})]
    generator = Generator().manual_seed(leaves)
    drawn = torch.rand(half, leaves, generator=generator).argsort(dim=1)[:, :2].sort(dim=1).values
    return slices + [(int(i), int(j)) for i, j in drawn]


def _mixed(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Slices and random pairs shuffled together, so that the first few include both."""
    order = torch.randperm(len(pairs), generator=Generator().manual_seed(len(pairs)))
    return [pairs[int(index)] for index in order]


def probe_batch(
    op: str, shape: Shape, dtype: torch.dtype, params: Params, question: Question, rows: int
) -> Batch:
    """Inputs in which output column n (or block n of rows) has its ±big at the leaves pairs[n]."""
    mask = MASKS[dtype]
    table = torch.zeros(len(question.pairs), shape.k)
    table[:, question.leaves] = mask.unit
    slots = torch.arange(len(question.pairs))
    first, second = torch.tensor(question.pairs).T
    table[slots, question.leaves[first]] = mask.big
    table[slots, question.leaves[second]] = -mask.big
    table = table.to(dtype)
    if op in ("linear", "mm"):
        x = torch.full((rows, shape.k), mask.other, dtype=dtype)
        return Batch({"x": x, "weight": table}, params, ("x",))
    if op == "linear.grad_x":
        dy = torch.full((rows, shape.k), mask.other, dtype=dtype)
        inputs = {"x": torch.zeros(rows, shape.n, dtype=dtype), "dy": dy}
        return Batch({**inputs, "weight": table.T.contiguous()}, params, ("x", "dy"))
    if op == "linear.grad_weight":
        dy = torch.full((shape.k, rows), mask.other, dtype=dtype)
        inputs = {"x": table.T.contiguous(), "dy": dy}
        return Batch({**inputs, "weight": torch.zeros(rows, shape.n, dtype=dtype)}, params, ())
    if op == "bmm":
        x = torch.full((rows, BMM_ROWS, shape.k), mask.other, dtype=dtype)
        weight = table.T.expand(rows, shape.k, shape.n).contiguous()
        return Batch({"x": x, "weight": weight}, params, ("x", "weight"))
    if op == "bmm.grad_x":
        dy = torch.full((rows, BMM_ROWS, shape.k), mask.other, dtype=dtype)
        weight = table.expand(rows, shape.n, shape.k).contiguous()
        inputs = {"x": dy.new_zeros(rows, BMM_ROWS, shape.n), "weight": weight, "dy": dy}
        return Batch(inputs, params, tuple(inputs))
    if op == "bmm.grad_weight":
        x = torch.full((rows, shape.k, BMM_ROWS), mask.other, dtype=dtype)
        dy = table.T.expand(rows, shape.k, shape.n).contiguous()
        inputs = {"x": x, "weight": x.new_zeros(rows, BMM_ROWS, shape.n), "dy": dy}
        return Batch(inputs, params, tuple(inputs))
    if op == "linear.grad_bias":
        dy = table[torch.arange(rows) // ROW_BLOCK].T.contiguous()
        inputs = {"x": dy.new_zeros(shape.k, 1), "weight": dy.new_zeros(rows, 1), "dy": dy}
        return Batch({**inputs, "bias": dy.new_zeros(rows)}, params, ())
    if columns(op, shape) == 1:
        x = table[torch.arange(rows) // ROW_BLOCK]
        return Batch({"x": x}, params, ("x",), column_major=op == "mean_strided")
    value = table.T[None, :, None, :].expand(rows, shape.k, KV_HEADS, shape.n).contiguous()
    # Queries of zero make all scores equal, and every leaf weigh the same.
    x = torch.zeros(rows, 1, HEADS, shape.n, dtype=dtype)
    inputs = {"x": x, "key": torch.zeros_like(value), "value": value}
    return Batch(inputs, params, ("x", "key", "value"))


def _counts(
    result: Tensor, op: str, shape: Shape, dtype: torch.dtype, leaves: int
) -> Tensor | None:
    """int64, as result: leaves outside the subtree, or None if that is not what it holds."""
    mask = MASKS[dtype]
    unit = mask.unit * (mask.other if op in PRODUCTS else 1.0)
    divided = op.startswith(("mean", "attention", "sdpa"))
    counts = result.double() / unit * (shape.k if divided else 1)
    rounded = counts.round()
    if not bool(torch.isfinite(counts).all()) or bool((counts - rounded).abs().max() > 0.45):
        return None
    return None if bool(((rounded < 0) | (rounded > leaves)).any()) else rounded.long()
