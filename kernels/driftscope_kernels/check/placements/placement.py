"""One way to hand rows to a kernel: which rows, in what company, layout and process state.

In: a Placement, the whole batch of a case. Out: the kernel's result for the rows that it keeps,
in the order of the whole batch, so that any two placements can be compared row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.registry import Kernel

#: What torch and its extensions raise for a layout that they do not take.
REFUSALS = (RuntimeError, ValueError, TypeError, NotImplementedError)


#: Room left before, between and behind the rows by the layouts that are not contiguous.
ROW_GAP = 3
NEIGHBOURS = ("zeros", "huge", "infinite", "nan", "denormal")
#: What memory behind the context holds: of a page that was used before, or was never written.
PADDINGS = ("huge", "nan")
#: Offsets in elements: 4 to 64 bytes for every width of the supported dtypes.
LAYOUTS = (
    *("contiguous", "row_gap", "every_second", "column_major"),
    *(f"offset_{elements}" for elements in (1, 2, 4, 8, 16)),
)
MOST_NUMBER = 4096  # rows, repeats, seeds of a replay
#: What a side of a replay may say by name.
NAMES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("layout", "constants"), LAYOUTS),
    "neighbours": NEIGHBOURS,
    "padding": PADDINGS,
}
#: Inputs of attention whose dimension 1 is the sequence.
ALONG_CONTEXT = ("x", "key", "value")
Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Placement:
    """JSON in and out, so that a counterexample can be replayed. Defaults: the plain call."""

    count: int  # rows in the batch
    start: int = 0  # first of them
    shuffle: int | None = None  # seed of their order
    neighbours: str | None = None  # what the other rows hold, where only `kept` is compared
    kept: int | None = None  # position of the one row that is compared; None: all
    chunk: int | None = None  # the batch is passed in parts of this many rows
    layout: str = "contiguous"
    constants: str = "contiguous"  # layout of the inputs that are the same for all rows
    micro_batch: int | None = None  # weight gradients: tokens per backward pass; None: all at once
    process: int | None = None  # hash seed of a fresh process that makes the call; None: this one
    threads: int | None = None  # None: as the check runs
    repeat: int = 1  # run so often, compare each
    query: int | None = None  # attention: only the last so many query tokens
    page_size: int | None = None  # attention: tokens per KV page
    page_order: int | None = None  # attention: seed of the order of the pages in the cache
    context: int | None = None  # attention: only the first so many tokens of each sequence
    padding: str | None = None  # attention: what the slots behind the context hold

    def to_dict(self) -> dict[str, Any]:
        """Without what is as in the plain call."""
        default = Placement(0)
        return {
            name: value
            for name, value in asdict(self).items()
            if name == "count" or value != getattr(default, name)
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Placement:
        unknown = set(values) - {field.name for field in fields(Placement)}
        if unknown or "count" not in values:
            raise ValueError(f"a side: it has 'count', and no {sorted(unknown)}")
        for name, value in values.items():
            known = NAMES.get(name)
            if known is not None and value not in known:
                raise ValueError(f"{name}={value!r}: one of {', '.join(known)}")
            if known is None and (not isinstance(value, int) or not 0 <= value <= MOST_NUMBER):
                raise ValueError(f"{name}={value!r}: a whole number from 0 to {MOST_NUMBER:,}")
        placement = Placement(**values)
        least_one = ("count", "repeat", "chunk", "threads", "micro_batch", "query", "context")
        if any(getattr(placement, name) == 0 for name in least_one):
            raise ValueError(f"a side: {', '.join(least_one)} are at least 1")
        return placement

    @property
    def rows(self) -> range:
        """Rows of the whole batch that `run` returns."""
        if self.kept is None:
            return range(self.start, self.start + self.count)
        return range(self.start + self.kept, self.start + self.kept + 1)


@dataclass(frozen=True, slots=True)
class Batch:
    """The inputs of a case for all its rows; `row_inputs` are those cut along dimension 0."""

    inputs: Mapping[str, Tensor]
    params: Params
    row_inputs: tuple[str, ...]
    column_major: bool = False  # the op is defined on inputs in this layout


def run(kernel: Kernel, batch: Batch, placement: Placement) -> Tensor:
    """[len(placement.rows), ...]: the kernel's result for the rows kept, in their own order."""
    order = torch.arange(placement.count)
    if placement.shuffle is not None:
        generator = torch.Generator().manual_seed(placement.shuffle)
        order = torch.randperm(placement.count, generator=generator)
    inputs = _placed(batch, placement, order)
    with thread_count(placement.threads):
        result = _call(kernel, inputs, batch, placement)
    if len(result) != placement.count:
        raise ValueError(f"{kernel.name} returned {len(result)} rows for {placement.count}")
    result = result[order.argsort()]
    return result if placement.kept is None else result[placement.kept : placement.kept + 1]


def _placed(batch: Batch, placement: Placement, order: Tensor) -> dict[str, Tensor]:
    inputs = dict(batch.inputs)
    for name in batch.row_inputs:
        rows = inputs[name][placement.start : placement.start + placement.count][order]
        if placement.neighbours is not None and placement.kept is not None:
            rows = _with_neighbours(
                rows, placement.neighbours, int(order.argsort()[placement.kept])
            )
        if placement.context is not None and name in ALONG_CONTEXT:
            rows = rows[:, : placement.context]
        if placement.query is not None and name == "x":
            rows = rows[:, -placement.query :]
        inputs[name] = laid_out(rows, "column_major" if batch.column_major else placement.layout)
    if placement.constants != "contiguous":
        for name in set(inputs) - set(batch.row_inputs):
            inputs[name] = laid_out(inputs[name], placement.constants)
    return inputs


def _call(kernel: Kernel, inputs: dict[str, Tensor], batch: Batch, placement: Placement) -> Tensor:
    params = dict(batch.params)
    for name in ("page_size", "page_order", "padding", "micro_batch"):
        if getattr(placement, name) is not None:
            params[name] = getattr(placement, name)
    if placement.chunk is None:
        return kernel.run(inputs, params)
    parts = []
    for start in range(0, placement.count, placement.chunk):
        cut = {name: inputs[name][start : start + placement.chunk] for name in batch.row_inputs}
        parts.append(kernel.run({**inputs, **cut}, params))
    return torch.cat(parts)


def _with_neighbours(rows: Tensor, content: str, kept: int) -> Tensor:
    """Every row but one replaced: nothing of it may reach the row that is kept."""
    if not rows.is_floating_point():
        return rows
    filled = torch.full_like(rows, special_value(content, rows.dtype))
    filled[kept] = rows[kept]
    return filled


def special_value(content: str, dtype: torch.dtype) -> float:
    """The number that one of NEIGHBOURS or PADDINGS stands for."""
    limits = torch.finfo(dtype)
    return {
        "zeros": 0.0,
        "huge": limits.max,
        "infinite": float("inf"),
        "nan": float("nan"),
        "denormal": limits.smallest_normal / 2,
    }[content]


def laid_out(rows: Tensor, layout: str) -> Tensor:
    """The same values elsewhere in memory."""
    if layout == "contiguous":
        return rows.contiguous()
    if layout == "column_major":
        return rows.movedim(0, -1).contiguous().movedim(-1, 0)
    if layout == "row_gap":
        wide = rows.new_zeros((*rows.shape[:-1], rows.shape[-1] + ROW_GAP))
        wide[..., : rows.shape[-1]] = rows
        return wide[..., : rows.shape[-1]]
    if layout == "every_second":
        wide = rows.new_zeros((*rows.shape[:-1], rows.shape[-1] * 2))
        wide[..., ::2] = rows
        return wide[..., ::2]
    offset = int(layout.removeprefix("offset_"))  # elements from the start of an allocation
    flat = rows.new_zeros(rows.numel() + offset)
    flat[offset:] = rows.reshape(-1)
    return flat[offset:].view(rows.shape)


@contextmanager
def thread_count(count: int | None) -> Iterator[None]:
    """Within the block, torch and the other OpenMP code use this many threads."""
    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
