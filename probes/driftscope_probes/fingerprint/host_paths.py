"""How this machine's CPU sums products: torch, our kernels, numpy's BLAS.

Kernels choose by shape, by the number of threads and by what the CPU offers, so every path is read
at a few shapes, with one and with two threads. Out: readings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from driftscope_kernels import ops
from driftscope_kernels.compare_ops.tree_shape import Branch, Tree, leaves, spine
from driftscope_kernels.compare_ops.trees import Linear, UnreadableTreeError, read_tree
from driftscope_probes.fingerprint.formats import FORMATS
from driftscope_probes.fingerprint.functions import DTYPES, hash_of
from driftscope_probes.fingerprint.precision import Places, result_bits, result_rounding
from driftscope_probes.fingerprint.report import PathReading, shortened
from driftscope_probes.fingerprint.specials import fused_product, infinities, subnormals
from driftscope_probes.fingerprint.unit import Unit, Values
from driftscope_probes.progress import Progress, ProgressSink

Shape: TypeAlias = tuple[int, int, int]
#: M, N, K: a token at a time, a batch, and a K beyond the blocks into which libraries cut it.
SHAPES: Final = ((1, 256, 576), (16, 256, 576), (16, 256, 1024))
#: K of attention is the context; a power of two, so that equal weights 1/K are exact.
ATTENTION_SHAPES: Final = ((1, 64, 256), (16, 64, 512))
#: Of the inputs whose results are hashed.
SEED: Final = 20
#: fp16 has few exponents below one: sums are held this much higher there.
FP16_SCALE: Final = 10


@dataclass(frozen=True, slots=True)
class HostPath:
    op: str
    name: str
    linear: Linear  # x [M, K] and weight [N, K] to [M, N]
    dtypes: tuple[str, ...] = ("fp32", "bf16", "fp16")
    shapes: tuple[Shape, ...] = SHAPES
    threaded: tuple[Shape, ...] = SHAPES[-1:]  # those read with two threads, too
    #: False: x is not a factor, so only the order and the precision of the sum can be read.
    multiplies: bool = True


def _bmm(x: Tensor, weight: Tensor) -> Tensor:
    pair = weight.t().expand(2, -1, -1).contiguous()
    return torch.bmm(x.expand(2, -1, -1).contiguous(), pair)[0]


def _numpy(x: Tensor, weight: Tensor) -> Tensor:
    return torch.from_numpy(np.matmul(x.numpy(), weight.numpy().T))


def _sum(x: Tensor, weight: Tensor) -> Tensor:
    """Of every row of the weight. The factor that lifts the numbers of fp16 is applied after."""
    return (weight.sum(-1).float() * x[0, 0].float()).expand(len(x), -1)


def _attention(x: Tensor, weight: Tensor) -> Tensor:
    """Queries of zero give every value the weight 1/K, which is taken out again."""
    value = weight.t()[None, None].contiguous()
    query = torch.zeros(1, 1, len(x), weight.shape[0], dtype=x.dtype)
    result = functional.scaled_dot_product_attention(query, torch.zeros_like(value), value)
    return result[0, 0].float() * weight.shape[1]


PATHS: Final = (
    HostPath("linear", "torch.nn.functional.linear", functional.linear, threaded=SHAPES),
    HostPath("mm", "torch.mm", lambda x, weight: torch.mm(x, weight.t()), shapes=SHAPES[::2]),
    HostPath("bmm", "torch.bmm", _bmm, shapes=SHAPES[:2]),
    HostPath(
        *("sdpa", "torch scaled_dot_product_attention, its product with the values", _attention),
        # A weight of 1/K takes the smallest number of fp16 below its range.
        dtypes=("fp32", "bf16"),
        shapes=ATTENTION_SHAPES,
        threaded=ATTENTION_SHAPES[-1:],
        multiplies=False,
    ),
    HostPath("sum", "Tensor.sum", _sum, shapes=SHAPES[1:], multiplies=False),
    HostPath("linear", "driftscope_kernels.ops.linear", ops.linear),
    HostPath("mm", "numpy.matmul", _numpy, dtypes=("fp32",)),
)


def host_paths(progress: ProgressSink, paths: tuple[HostPath, ...] = PATHS) -> list[PathReading]:
    asked = [
        (path, dtype, shape, threads)
        for path in paths
        for dtype in path.dtypes
        for threads, shapes in ((1, path.shapes), (2, path.threaded))
        for shape in shapes
        if shape in path.shapes
    ]
    found = []
    for number, (path, dtype, shape, count) in enumerate(asked):
        progress(Progress("reading sums", number / len(asked), f"{path.name} {dtype}"))
        with _threads(count):
            found.append(read_path(path, dtype, shape, count))
    return found


def read_path(path: HostPath, dtype: str, shape: Shape, threads: int) -> PathReading:
    rows, columns, k = shape
    tree, why = None, ""
    try:
        tree = read_tree(path.linear, k, DTYPES[dtype], rows, columns)
    except UnreadableTreeError as error:
        why = str(error)
    unit = _unit(path, dtype, shape)
    places = None if tree is None else _places(tree, dtype)
    bits = None if places is None else result_bits(unit, places)
    known = places is not None and path.multiplies
    return PathReading(
        op=path.op,
        dtype=dtype,
        result=dtype,
        path=path.name,
        shape=shape,
        threads=threads,
        tree=None if tree is None else shortened(tree.text),
        tree_hash=None if tree is None else tree.hash,
        order=None if tree is None else tree.summary,
        accumulator_bits=None if bits is None else _width(bits),
        sum_fraction_bits=bits,
        rounding=None if places is None or bits is None else result_rounding(unit, places, bits),
        fma=fused_product(unit, places, bits) if known and places and bits else None,
        subnormals=subnormals(unit, places) if known and places else None,
        infinities=infinities(unit, places) if known and places else None,
        bits=_bits(path, dtype, shape),
        why=why,
    )


def _places(tree: Tree, dtype: str) -> Places | None:
    """A leaf of each of the first three sums, so that the third comes after the others."""
    start, steps = spine(tree.root)
    if len(steps) < 2:
        return None
    second, third = (_leaf(step[0]) for step in steps[:2])
    return Places((start,), second, third, FP16_SCALE if dtype == "fp16" else 0)


def _leaf(branch: Branch) -> int:
    return min(leaves(branch))


def _width(fraction_bits: int) -> int | None:
    """Of the format with that many bits of fraction; None: of no known one."""
    for name in ("fp64", "fp32", "fp16", "bf16"):
        if FORMATS[name].fraction_bits == fraction_bits:
            return FORMATS[name].bits
    return None


def _unit(path: HostPath, dtype: str, shape: Shape) -> Unit:
    rows, columns, k = shape
    form = FORMATS[dtype]
    together = min(rows, columns) if path.multiplies else columns

    def run(a: Values, b: Values, _c: Values) -> Values:
        found = np.empty(len(a))
        for start in range(0, len(a), together):
            part = slice(start, start + together)
            if path.multiplies:
                x, weight = _padded(a[part], rows), _padded(b[part], columns)
                of_pairs = _called(path, dtype, x, weight).diagonal()
            else:
                weight = _padded(a[part] * b[part], columns)
                of_pairs = _called(path, dtype, np.ones((rows, k)), weight)[-1]
            found[part] = of_pairs[: len(a[part])]
        return found

    return Unit(k, form, form, None, form, run)


def _padded(values: Values, rows: int) -> Values:
    return np.concatenate([values, np.zeros((rows - len(values), values.shape[1]))])


def _called(path: HostPath, dtype: str, x: Values, weight: Values) -> Values:
    x_, weight_ = (torch.from_numpy(each).to(DTYPES[dtype]) for each in (x, weight))
    found: Values = path.linear(x_, weight_).double().numpy()
    return found


def _bits(path: HostPath, dtype: str, shape: Shape) -> str:
    """Hash of what comes out for fixed inputs, which nothing that changes a bit can pass by."""
    rows, columns, k = shape
    generator = Generator().manual_seed(SEED)
    x, weight = (torch.rand(n, k, generator=generator) - 0.5 for n in (rows, columns))
    return hash_of(path.linear(x.to(DTYPES[dtype]), weight.to(DTYPES[dtype])).contiguous())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
