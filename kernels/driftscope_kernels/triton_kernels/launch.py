"""The one place where kernels start, so that the same launches can be written down instead of run.

In: a Triton kernel, its grid and arguments. Out: nothing, or Launch records while `recording`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Rows that one program of a row kernel takes: 8 rows of 16 lanes are the 128 threads of 4 warps.
ROWS = 8
WARPS = 4
STAGES = 2
# Vector loads of 16 bytes; Triton compiles another binary for pointers that are not aligned to it.
ALIGNMENT = 16
# A larger integer would be a 64-bit argument: another signature, another binary.
LARGEST_ARGUMENT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a kernel, as it would be made."""

    kernel: Any  # triton.JITFunction
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]


class SizeError(ValueError):
    """More rows or elements than one launch counts."""


class DeviceError(ValueError):
    """Tensors on a device on which Triton kernels do not run."""


_record: ContextVar[list[Launch] | None] = ContextVar("driftscope_triton_record", default=None)


def interpreting() -> bool:
    """True in a process whose Triton interprets kernels in Python."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Within the block kernels are not run but listed; results hold whatever was in memory."""
    launches: list[Launch] = []
    token = _record.set(launches)
    try:
        yield launches
    finally:
        _record.reset(token)


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: Mapping[str, Any],
    *,
    num_warps: int = WARPS,
    num_stages: int = STAGES,
) -> None:
    """Start the kernel on the device of its tensors. A grid of nothing starts nothing.

    Fusing a product and a sum that the source keeps apart is switched off explicitly: the default
    differs between Triton versions.
    """
    for name, value in arguments.items():
        if isinstance(value, int) and value > LARGEST_ARGUMENT:
            raise SizeError(
                f"{name} = {value}: a Triton kernel takes up to {LARGEST_ARGUMENT} rows or "
                "elements in one call; cut the batch"
            )
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": False}
    records = _record.get()
    if records is not None:
        records.append(Launch(kernel, grid, arguments, options))
        return
    if 0 in grid:
        return
    device = next(v.device for v in arguments.values() if isinstance(v, Tensor))
    if interpreting():
        with np.errstate(all="ignore"):
            kernel[grid](**arguments)
    elif device.type != "cuda":
        raise DeviceError(
            f"tensors are on {device}; Triton kernels take tensors on a GPU, and tensors on cpu "
            "only in a process started with TRITON_INTERPRET=1"
        )
    else:
        with torch.cuda.device(device):
            kernel[grid](**arguments, **options)


def programs(count: int, per_program: int) -> int:
    return -(-count // per_program)


def aligned(x: Tensor) -> Tensor:
    """Contiguous and aligned, copied if it is not: one binary, wherever in a batch a row lies."""
    x = x.detach().contiguous()
    return x if x.data_ptr() % ALIGNMENT == 0 else x.clone()


def as_rows(x: Tensor, dim: int = -1) -> Tensor:
    """[rows, n], contiguous and aligned: `dim` last, the others flattened in their order."""
    moved = x.movedim(dim, -1)
    return aligned(moved.reshape(moved.shape[:-1].numel(), moved.shape[-1]))


def back(rows: Tensor, like: Tensor, dim: int) -> Tensor:
    """Tensor in the shape of `like` from what was computed on `as_rows`."""
    return rows.reshape(like.movedim(dim, -1).shape).movedim(-1, dim).contiguous()
