"""What a kernel is found to be, and where a difference comes from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch

from driftscope_kernels.check.cases.case import (
    DTYPES,
    NORMAL,
    POSITIVE_KINDS,
    SIGNED_KINDS,
    OpCase,
    Shape,
    Subject,
)
from driftscope_kernels.check.detection import Detection
from driftscope_kernels.check.placements.axes import FRESH_PROCESS, batch_sizes
from driftscope_kernels.check.placements.placement import Placement, thread_count
from driftscope_kernels.check.search import ACCURACY, PROBE, AxisCount, Mismatch, Trial, compare
from driftscope_kernels.check.tree_probe import TreeReading, can_read, subtree_sizes
from driftscope_kernels.options import VerdictName
from driftscope_kernels.registry import Kernel

M_REMAINDER, GEMV, SPLIT_K, SPLIT_KV = "M-remainder path", "gemv path", "split-K", "split-KV"
THREADS, LAYOUT = "thread split", "layout"
LAYOUT_AXIS = "layout"
#: docs/add-a-kernel.md says the same: a kernel may take any strides or refuse them.
LAYOUT_REMEDY = (
    "copy such inputs first, tensor.clone(memory_format=torch.contiguous_format), since "
    ".contiguous() leaves a start that is not aligned as it is; or raise an error for layouts that "
    "the kernel does not take: what it refuses is not held against it. To check it as a caller "
    "with one layout sees it, name the other axes with --axis"
)
BY_AXIS = {
    ACCURACY: "wrong result",
    "run_to_run": "run to run",
    FRESH_PROCESS: "process state",
    "neighbours": "neighbour content",
    LAYOUT_AXIS: LAYOUT,
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
    remedy: str | None = None  # what to do about it, where there is something simple


def cause(kernel: Kernel, case: OpCase, found: Mismatch) -> Cause:
    if found.axis == LAYOUT_AXIS:
        return Cause(LAYOUT, _layout_evidence(found.right), LAYOUT_REMEDY)
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


def _layout_evidence(placement: Placement) -> str:
    """What lies elsewhere in memory; the values are the same."""
    shared = placement.constants != "contiguous"
    which = "the inputs that all rows share (weights)" if shared else "the rows"
    layout = placement.constants if shared else placement.layout
    return f"other bits with {which} laid out in memory as {layout} than with contiguous ones"


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


#: What a proof by trees rests on; printed with every one.
ASSUMPTIONS = (
    "the order of additions does not depend on the values that are added",
    "it is the same in every column of the result for which it is the same in those probed",
    "products and the rounding of the result are the same wherever the order is",
    "on this machine, at this number of threads, for the shapes and batch sizes listed",
)


@dataclass(frozen=True, slots=True)
class Counterexample:
    subject: Subject
    mismatch: Mismatch  # the smallest found
    cause: Cause  # cause of the first mismatch found, at full size
    first_shape: Shape  # where it was found first

    def to_dict(self) -> dict[str, Any]:
        return {
            "cause": self.cause.name,
            "evidence": self.cause.evidence,
            **mismatch_dict(self.mismatch),
            "found_at": asdict(self.first_shape),
            "replay": replay_command(self.subject, self.mismatch),
        }


def mismatch_dict(found: Mismatch) -> dict[str, Any]:
    return {
        "axis": found.axis,
        "k": found.trial.shape.k,
        "n": found.trial.shape.n,
        "inputs": found.trial.kind,
        "left": found.left.to_dict(),
        "right": found.right.to_dict(),
        "row": found.row,
        "difference": {k: v for k, v in asdict(found.difference).items() if k != "row"},
        "rows_differ": found.rows_differ,
        "rows_compared": found.rows_compared,
    }


@dataclass(frozen=True, slots=True)
class KernelVerdict:
    subject: Subject
    verdict: VerdictName
    reason: str
    detection: Detection | None  # None: refuted before it was needed, or the kernel failed
    counterexample: Counterexample | None
    proofs: tuple[TreeReading, ...]
    axes: tuple[AxisCount, ...]
    shapes: tuple[Shape, ...]
    rows: int
    seconds: float
    remedy: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.subject.to_dict(),
            "verdict": self.verdict,
            "reason": self.reason,
            "remedy": self.remedy,
            "detection_rate": None if self.detection is None else round(self.detection.rate, 4),
            "missed_twins": [] if self.detection is None else list(self.detection.missed),
            "counterexample": self.counterexample and self.counterexample.to_dict(),
            "proof": self._proof(),
            "axes": [count.to_dict() for count in self.axes],
            "shapes": [asdict(shape) for shape in self.shapes],
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
        }

    def _proof(self) -> dict[str, Any] | None:
        """Trees that were equal: a proof where the verdict says so, else of a part of the op."""
        if not self.proofs:
            return None
        readings = [reading.to_dict() for reading in self.proofs]
        return {"assumptions": list(ASSUMPTIONS), "readings": readings}


def replay_spec(subject: Subject, found: Mismatch) -> dict[str, Any]:
    """Everything from which the two calls can be made again."""
    return call_spec(subject, found.axis, found.trial, found.left, found.right)


def call_spec(
    subject: Subject, axis: str, trial: Trial, left: Placement, right: Placement
) -> dict[str, Any]:
    return {
        **subject.to_dict(),
        "axis": axis,
        **{"k": trial.shape.k, "n": trial.shape.n, "inputs": trial.kind, "seed": trial.seed},
        "rows": trial.rows,
        "left": left.to_dict(),
        "right": right.to_dict(),
    }


def replay_command(subject: Subject, found: Mismatch) -> str:
    spec = json.dumps(replay_spec(subject, found), separators=(",", ":"))
    return f"driftscope kernels check --replay '{spec}'"


KINDS = {*SIGNED_KINDS, *POSITIVE_KINDS, PROBE}


class ReplaySpecError(ValueError):
    """A replay that does not say what to run."""


def read_replay_spec(spec: dict[str, Any]) -> tuple[Subject, str, Trial, Placement, Placement]:
    """Inverse of `replay_spec`. Raises ReplaySpecError."""
    try:
        dtype = DTYPES[spec["dtype"]]
        threads = _number(spec, "threads", 1, MOST_THREADS)
        target, op, implementation = (str(spec[n]) for n in ("target", "op", "implementation"))
        subject = Subject(target, op, implementation, dtype, threads)
        shape = Shape(_number(spec, "k", 1, MOST_SIZE), _number(spec, "n", 1, MOST_SIZE))
        rows = _number(spec, "rows", 1, MOST_ROWS)
        trial = Trial(shape, dtype, str(spec["inputs"]), _number(spec, "seed", 0, 2**31), rows)
        left, right = (Placement.from_dict(spec[side]) for side in ("left", "right"))
    except (KeyError, TypeError, ValueError) as error:
        raise ReplaySpecError(f"the replay is missing or misstates {error}") from error
    if trial.kind not in KINDS:
        raise ReplaySpecError(f"inputs={trial.kind!r}: one of {', '.join(sorted(KINDS))}")
    if max(left.start + left.count, right.start + right.count) > rows:
        raise ReplaySpecError(f"a side has more rows than the batch, which has {rows}")
    return subject, str(spec["axis"]), trial, left, right


#: More than any check uses; a replay is typed by hand and may not fill the memory.
MOST_THREADS, MOST_SIZE, MOST_ROWS = 1024, 1 << 16, 4096


def _number(spec: dict[str, Any], name: str, least: int, most: int) -> int:
    value = spec[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name}={value!r}: a whole number from {least} to {most}")
    return value
