"""Inputs of the ops that can be checked, and rows whose results depend on the order of additions.

In: shape, rows, dtype, kind, seed. Out: Batch, with the names and shapes that `Kernel.run` receives
(docs/add-a-kernel.md has the table).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

from driftscope_kernels.check.cases import case as kinds
from driftscope_kernels.check.cases.case import BMM_ROWS, EPS, HEADS, KV_HEADS, MOST_ROWS, Shape
from driftscope_kernels.check.placements.placement import Batch
from driftscope_kernels.check.twins.ordered_ops import PLAIN, SHUFFLED
from driftscope_kernels.check.twins.reassociated import compute

Complete = Callable[[Tensor], Mapping[str, Tensor]]


def sensitive_rows(
    op: str, shape: Shape, rows: int, width: int, dtype: torch.dtype, seed: int, complete: Complete
) -> Tensor:
    """[rows, width]: `complete` gives the op's other inputs for rows of x."""
    key = (op, shape, width, dtype, seed)
    if key not in _chosen:
        pool_rows = min(kinds.POOL_ROWS, max(MOST_ROWS, kinds.POOL_VALUES // width))
        pool = kinds.values(kinds.NORMAL, pool_rows, width, dtype, Generator().manual_seed(seed))

        def results(x: Tensor, order: int | None) -> Tensor:
            how = PLAIN if order is None else f"{SHUFFLED}{order}"
            return compute(op, complete(x), {"eps": EPS}, how)

        _chosen[key] = kinds.sensitive(pool, MOST_ROWS, results)
    return _chosen[key][:rows]


#: Choosing takes seconds, and every twin is tried on the same rows.
_chosen: dict[tuple[str, Shape, int, torch.dtype, int], Tensor] = {}


PAGE_SIZE = 32  # tokens; the smallest of vLLM's CPU attention


def generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def matrix(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    random = generator(seed)
    x = kinds.values(kind, rows, shape.k, dtype, random)
    if kind == kinds.CANCELLING:
        weight = kinds.paired(shape.n, shape.k, dtype, random)
    else:
        own = kinds.NORMAL if kind == kinds.ACTIVATIONS else kind
        weight = kinds.values(own, shape.n, shape.k, dtype, random)
    return Batch({"x": x, "weight": weight}, {}, ("x",))


def batched_matrix(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    flat = matrix(Shape(shape.k, shape.n * rows), rows * BMM_ROWS, dtype, kind, seed).inputs
    inputs = {
        "x": flat["x"].view(rows, BMM_ROWS, shape.k),
        "weight": flat["weight"].view(rows, shape.n, shape.k).transpose(1, 2).contiguous(),
    }
    return Batch(inputs, {}, ("x", "weight"))


def reduction(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    x = kinds.values(kind, rows, shape.k, dtype, generator(seed))
    return Batch({"x": x}, {"dim": -1}, ("x",))


def strided_reduction(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    plain = reduction(shape, rows, dtype, kind, seed)
    return Batch(plain.inputs, plain.params, ("x",), column_major=True)


def exponentials(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    if kind == kinds.SENSITIVE:
        x = sensitive_rows("softmax", shape, rows, shape.k, dtype, seed, lambda x: {"x": x})
        return Batch({"x": x}, {"dim": -1}, ("x",))
    if kind != kinds.ABSORBING:
        return reduction(shape, rows, dtype, kind, seed)
    # exp(x − max) is 1 for one element and about 2⁻²⁴ for the others.
    small = float(torch.tensor(kinds.ABSORBED_TERM).log())
    x = kinds.absorbing(rows, shape.k, 0.0, small, torch.float32)
    # The factor of two between rows is one in the term, thus a sum in the exponent.
    scale = (x / small).clamp(min=1).log()
    x = torch.where(x == 0, x, small + scale)
    return Batch({"x": x.to(dtype)}, {"dim": -1}, ("x",))


def squares(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    random = generator(seed)
    weight = (1 + torch.randn(shape.k, generator=random) / 8).to(dtype)
    params = {"eps": EPS}
    if kind == kinds.ABSORBING:
        x = kinds.absorbing(rows, shape.k, 1.0, kinds.ABSORBED_TERM**0.5, dtype)
    elif kind == kinds.SENSITIVE:
        x = sensitive_rows(
            op="rms_norm",
            shape=shape,
            rows=rows,
            width=shape.k,
            dtype=dtype,
            seed=seed,
            complete=lambda x: {"x": x, "weight": weight},
        )
    else:
        x = kinds.values(kind, rows, shape.k, dtype, random)
    return Batch({"x": x, "weight": weight}, params, ("x",))


def added_squares(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    batch = squares(shape, rows, dtype, kind, seed)
    half = (batch.inputs["x"] / 2).to(dtype)
    return Batch({**batch.inputs, "x": half, "residual": half}, batch.params, ("x", "residual"))


def gated(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    if kind == kinds.SENSITIVE:
        x = sensitive_rows("swiglu", shape, rows, shape.k, dtype, seed, gate_and_up)
        return Batch(gate_and_up(x), {}, ("x", "up"))
    return Batch(
        gate_and_up(kinds.values(kind, rows, shape.k, dtype, generator(seed))), {}, ("x", "up")
    )


def gate_and_up(x: Tensor) -> Mapping[str, Tensor]:
    return {"x": x, "up": x.roll(1, -1)}


def rotated(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    angle = torch.rand(MOST_ROWS, shape.k // 2, generator=generator(seed)) * 6.25

    def complete(flat: Tensor) -> Mapping[str, Tensor]:
        x = flat.view(len(flat), HEADS, shape.k)
        # Where rows are chosen from a pool, the angle has to be the same for all of them.
        turn = angle[:1].expand(len(flat), -1) if kind == kinds.SENSITIVE else angle[: len(flat)]
        tables = {"cos": turn.cos().to(dtype), "sin": turn.sin().to(dtype)}
        return {"x": x, "key": x.roll(1, -1), **tables}

    width = HEADS * shape.k
    if kind == kinds.SENSITIVE:
        flat = sensitive_rows("rotary", shape, rows, width, dtype, seed, complete)
    else:
        flat = kinds.values(kind, rows, width, dtype, generator(seed))
    inputs = complete(flat)
    return Batch(inputs, {}, tuple(inputs))


def token_logprob(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    batch = matrix(shape, rows, dtype, kind, seed)
    targets = torch.randint(0, shape.n, (rows,), generator=generator(seed + 1))
    return Batch({**batch.inputs, "targets": targets}, {}, ("x", "targets"))


def _attention(
    shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int, *, query: int
) -> Batch:
    random = generator(seed)
    length = min(query, shape.k)
    wide = kinds.WIDE_EXPONENT if kind == kinds.WIDE else None
    x, key = (
        torch.randn(rows, tokens, heads, shape.n, generator=random).to(dtype)
        for tokens, heads in ((length, HEADS), (shape.k, KV_HEADS))
    )
    # The order of additions shows in P·V: the kind is that of the values, along the context.
    kind = kinds.NORMAL if wide else kind
    value = kinds.values(kind, rows * KV_HEADS * shape.n, shape.k, dtype, random)
    value = value.view(rows, KV_HEADS, shape.n, shape.k).permute(0, 3, 1, 2).contiguous()
    if kind == kinds.CANCELLING:
        x = torch.zeros_like(x)  # equal weights, or the pairs would not cancel
    params = {"split_kv": True, "page_size": PAGE_SIZE, "page_order": 0, "padding": None}
    return Batch({"x": x, "key": key, "value": value}, params, ("x", "key", "value"))


def decode(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    return _attention(shape, rows, dtype, kind, seed, query=1)


def prefill(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    return _attention(shape, rows, dtype, kind, seed, query=shape.k)
