"""Every op that can be checked: its inputs, its shapes, how exact its result must be.

In: op name. Out: OpCase. Names and shapes of inputs are those that `Kernel.run` receives
(docs/kernel-checker.md has the table).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from driftscope_kernels.check import gradient_inputs, gradient_oracles, oracles
from driftscope_kernels.check import inputs as kinds
from driftscope_kernels.check.placement import Batch
from driftscope_kernels.check.reassociated import PLAIN, SHUFFLED, compute

EPS = 1e-6  # of Llama-like models
BMM_ROWS = 4  # rows of every matrix of a batched product
HEADS, KV_HEADS = 4, 2
ATTENTION_CALL_S = 0.02  # a call includes the filling of the cache
PAGE_SIZE = 32  # tokens; the smallest of vLLM's CPU attention


@dataclass(frozen=True, slots=True)
class Shape:
    """k: length of the reduction (context length of attention). n: outputs (width of a head)."""

    k: int
    n: int = 1


@dataclass(frozen=True, slots=True)
class OpCase:
    op: str
    kinds: tuple[str, ...]
    shapes: tuple[Shape, ...]
    quick_shapes: tuple[Shape, ...]
    build: Callable[[Shape, int, torch.dtype, str, int], Batch]
    oracle: Callable[[Mapping[str, Tensor], Mapping[str, Any]], oracles.Oracle] | None
    most_rows: int | None = None  # None: as many as the check asks for
    layouts: bool = True
    paged: bool = False
    prefill: bool = False  # every token of the context is a query
    constants: bool = False  # there are inputs that all rows share
    micro_batches: bool = False  # a weight gradient: k tokens, rows are those of the weight
    least_n: int = 1  # shrinking goes no further
    # Seconds that a call of 9 rows may take before fewer rows, shapes and kinds are checked.
    slow_call_s: float = 0.001


class UnknownOpError(ValueError):
    """An op without a description of its inputs."""


def op_case(op: str) -> OpCase:
    if op not in OP_CASES:
        raise UnknownOpError(
            f"op {op!r}: the checker knows the inputs of {', '.join(OP_CASES)}; register the "
            "kernel under the one that it computes"
        )
    return OP_CASES[op]


def _generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def _matrix(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    generator = _generator(seed)
    x = kinds.values(kind, rows, shape.k, dtype, generator)
    if kind == kinds.CANCELLING:
        weight = kinds.paired(shape.n, shape.k, dtype, generator)
    else:
        own = kinds.NORMAL if kind == kinds.ACTIVATIONS else kind
        weight = kinds.values(own, shape.n, shape.k, dtype, generator)
    return Batch({"x": x, "weight": weight}, {}, ("x",))


def _batched_matrix(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    flat = _matrix(Shape(shape.k, shape.n * rows), rows * BMM_ROWS, dtype, kind, seed).inputs
    inputs = {
        "x": flat["x"].view(rows, BMM_ROWS, shape.k),
        "weight": flat["weight"].view(rows, shape.n, shape.k).transpose(1, 2).contiguous(),
    }
    return Batch(inputs, {}, ("x", "weight"))


def _reduction(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    x = kinds.values(kind, rows, shape.k, dtype, _generator(seed))
    return Batch({"x": x}, {"dim": -1}, ("x",))


def _strided_reduction(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    plain = _reduction(shape, rows, dtype, kind, seed)
    return Batch(plain.inputs, plain.params, ("x",), column_major=True)


Complete = Callable[[Tensor], Mapping[str, Tensor]]


def _sensitive(
    op: str, shape: Shape, rows: int, width: int, dtype: torch.dtype, seed: int, complete: Complete
) -> Tensor:
    """[rows, width]: `complete` gives the op's other inputs for rows of x."""
    key = (op, shape, width, dtype, seed)
    if key not in _sensitive_rows:
        pool_rows = min(kinds.POOL_ROWS, max(MOST_ROWS, kinds.POOL_VALUES // width))
        pool = kinds.values(kinds.NORMAL, pool_rows, width, dtype, _generator(seed))

        def results(x: Tensor, order: int | None) -> Tensor:
            how = PLAIN if order is None else f"{SHUFFLED}{order}"
            return compute(op, complete(x), {"eps": EPS}, how)

        _sensitive_rows[key] = kinds.sensitive(pool, MOST_ROWS, results)
    return _sensitive_rows[key][:rows]


#: Choosing takes seconds, and every twin is tried on the same rows.
_sensitive_rows: dict[tuple[str, Shape, int, torch.dtype, int], Tensor] = {}
MOST_ROWS = 257


def _exponentials(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    if kind == kinds.SENSITIVE:
        x = _sensitive("softmax", shape, rows, shape.k, dtype, seed, lambda x: {"x": x})
        return Batch({"x": x}, {"dim": -1}, ("x",))
    if kind != kinds.ABSORBING:
        return _reduction(shape, rows, dtype, kind, seed)
    # exp(x − max) is 1 for one element and about 2⁻²⁴ for the others.
    small = float(torch.tensor(kinds.ABSORBED_TERM).log())
    x = kinds.absorbing(rows, shape.k, 0.0, small, torch.float32)
    # The factor of two between rows is one in the term, thus a sum in the exponent.
    scale = (x / small).clamp(min=1).log()
    x = torch.where(x == 0, x, small + scale)
    return Batch({"x": x.to(dtype)}, {"dim": -1}, ("x",))


def _squares(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    generator = _generator(seed)
    weight = (1 + torch.randn(shape.k, generator=generator) / 8).to(dtype)
    params = {"eps": EPS}
    if kind == kinds.ABSORBING:
        x = kinds.absorbing(rows, shape.k, 1.0, kinds.ABSORBED_TERM**0.5, dtype)
    elif kind == kinds.SENSITIVE:
        x = _sensitive(
            *("rms_norm", shape, rows, shape.k, dtype, seed), lambda x: {"x": x, "weight": weight}
        )
    else:
        x = kinds.values(kind, rows, shape.k, dtype, generator)
    return Batch({"x": x, "weight": weight}, params, ("x",))


def _added_squares(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    batch = _squares(shape, rows, dtype, kind, seed)
    half = (batch.inputs["x"] / 2).to(dtype)
    return Batch({**batch.inputs, "x": half, "residual": half}, batch.params, ("x", "residual"))


def _gated(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    if kind == kinds.SENSITIVE:
        x = _sensitive("swiglu", shape, rows, shape.k, dtype, seed, _gate_and_up)
        return Batch(_gate_and_up(x), {}, ("x", "up"))
    return Batch(
        _gate_and_up(kinds.values(kind, rows, shape.k, dtype, _generator(seed))), {}, ("x", "up")
    )


def _gate_and_up(x: Tensor) -> Mapping[str, Tensor]:
    return {"x": x, "up": x.roll(1, -1)}


def _rotated(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    angle = torch.rand(MOST_ROWS, shape.k // 2, generator=_generator(seed)) * 6.25

    def complete(flat: Tensor) -> Mapping[str, Tensor]:
        x = flat.view(len(flat), HEADS, shape.k)
        # Where rows are chosen from a pool, the angle has to be the same for all of them.
        turn = angle[:1].expand(len(flat), -1) if kind == kinds.SENSITIVE else angle[: len(flat)]
        tables = {"cos": turn.cos().to(dtype), "sin": turn.sin().to(dtype)}
        return {"x": x, "key": x.roll(1, -1), **tables}

    width = HEADS * shape.k
    if kind == kinds.SENSITIVE:
        flat = _sensitive("rotary", shape, rows, width, dtype, seed, complete)
    else:
        flat = kinds.values(kind, rows, width, dtype, _generator(seed))
    inputs = complete(flat)
    return Batch(inputs, {}, tuple(inputs))


def _token_logprob(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    batch = _matrix(shape, rows, dtype, kind, seed)
    targets = torch.randint(0, shape.n, (rows,), generator=_generator(seed + 1))
    return Batch({**batch.inputs, "targets": targets}, {}, ("x", "targets"))


def _attention(
    shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int, *, query: int
) -> Batch:
    generator = _generator(seed)
    length = min(query, shape.k)
    wide = kinds.WIDE_EXPONENT if kind == kinds.WIDE else None
    x, key = (
        torch.randn(rows, tokens, heads, shape.n, generator=generator).to(dtype)
        for tokens, heads in ((length, HEADS), (shape.k, KV_HEADS))
    )
    # The order of additions shows in P·V: the kind is that of the values, along the context.
    kind = kinds.NORMAL if wide else kind
    value = kinds.values(kind, rows * KV_HEADS * shape.n, shape.k, dtype, generator)
    value = value.view(rows, KV_HEADS, shape.n, shape.k).permute(0, 3, 1, 2).contiguous()
    if kind == kinds.CANCELLING:
        x = torch.zeros_like(x)  # equal weights, or the pairs would not cancel
    params = {"split_kv": True, "page_size": PAGE_SIZE, "page_order": 0, "padding": None}
    return Batch({"x": x, "key": key, "value": value}, params, ("x", "key", "value"))


def _decode(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    return _attention(shape, rows, dtype, kind, seed, query=1)


def _prefill(shape: Shape, rows: int, dtype: torch.dtype, kind: str, seed: int) -> Batch:
    return _attention(shape, rows, dtype, kind, seed, query=shape.k)


#: Nothing is summed: what can differ is how the terms of one element are rounded.
TERMWISE = (kinds.NORMAL, kinds.SENSITIVE, kinds.WIDE, kinds.ACTIVATIONS)
SIGNED, POSITIVE = kinds.SIGNED_KINDS, kinds.POSITIVE_KINDS
#: (K, N) of small models' projections, K cut to what one core checks in seconds; 1,536 is where
#: oneDNN begins to treat one row apart.
_MATRICES = (Shape(64, 48), Shape(576, 64), Shape(1536, 64), Shape(2048, 33))
_QUICK_MATRICES = (Shape(64, 48), Shape(1536, 64))
_ROWS = (Shape(64), Shape(576), Shape(1000), Shape(4864))
_QUICK_ROWS = (Shape(576), Shape(1000))
_CONTEXTS = (Shape(100, 64), Shape(300, 64), Shape(700, 64))
_QUICK_CONTEXTS = (Shape(100, 64), Shape(300, 64))
_PROMPTS = (Shape(100, 64), Shape(300, 64))
_GRADIENT_PROMPTS = (Shape(70, 32), Shape(150, 32))
#: Weights of attention leave no pair of terms equal.
_UNPAIRED = (kinds.NORMAL, kinds.WIDE, kinds.LINEAR_RANGE, kinds.ACTIVATIONS)
_GRADIENT_ROWS = (Shape(64), Shape(576), Shape(1000))
#: Tokens: nine blocks of 64, and a last one that is not full.
_TOKENS = (Shape(576, 48), Shape(1000, 48))
_NORM_TOKENS = (Shape(576), Shape(1000))
GRADIENT_CALL_S = 0.004  # a call runs forward and backward, a weight gradient over all tokens

OP_CASES: Mapping[str, OpCase] = {
    case.op: case
    for case in (
        OpCase(
            *("linear", SIGNED, _MATRICES, _QUICK_MATRICES, _matrix, oracles.linear),
            constants=True,
        ),
        OpCase(
            *("mm", SIGNED, _MATRICES, _QUICK_MATRICES, _matrix, oracles.linear),
            constants=True,
        ),
        OpCase(
            *("bmm", SIGNED, (Shape(64, 16), Shape(576, 16)), (Shape(64, 16),)),
            *(_batched_matrix, oracles.bmm, 65),
        ),
        OpCase("sum", SIGNED, _ROWS, _QUICK_ROWS, _reduction, oracles.sum_),
        OpCase("mean", SIGNED, _ROWS, _QUICK_ROWS, _reduction, oracles.mean),
        OpCase(
            *("mean_strided", SIGNED, _ROWS, _QUICK_ROWS, _strided_reduction, oracles.mean),
            layouts=False,
        ),
        OpCase("softmax", POSITIVE, _ROWS, _QUICK_ROWS, _exponentials, oracles.softmax),
        OpCase("log_softmax", POSITIVE, _ROWS, _QUICK_ROWS, _exponentials, oracles.log_softmax),
        OpCase("logsumexp", POSITIVE, _ROWS, _QUICK_ROWS, _exponentials, oracles.logsumexp),
        OpCase(
            *("rms_norm", POSITIVE, _ROWS, _QUICK_ROWS, _squares, oracles.rms_norm),
            constants=True,
        ),
        OpCase(
            *("add_rms_norm", POSITIVE, _ROWS, _QUICK_ROWS, _added_squares, oracles.add_rms_norm),
            constants=True,
        ),
        OpCase(
            *("swiglu", TERMWISE, _ROWS, _QUICK_ROWS),
            *(_gated, oracles.swiglu),
        ),
        OpCase(
            *("rotary", TERMWISE, (Shape(64), Shape(80)), (Shape(64),)),
            *(_rotated, oracles.rotary),
        ),
        OpCase(
            *("token_logprob", SIGNED, (Shape(64, 1000), Shape(576, 1000)), (Shape(64, 1000),)),
            *(_token_logprob, oracles.token_logprob, 65), constants=True,
        ),
        OpCase(
            *("attention", SIGNED, _CONTEXTS, _QUICK_CONTEXTS, _decode, oracles.attention, 33),
            layouts=False, paged=True, least_n=64, slow_call_s=ATTENTION_CALL_S,
        ),
        OpCase(
            *("attention_prefill", SIGNED, _PROMPTS, _PROMPTS[:1], _prefill, oracles.attention, 5),
            layouts=False, paged=True, prefill=True, least_n=64, slow_call_s=ATTENTION_CALL_S,
        ),
        OpCase(
            *("sdpa", SIGNED, _CONTEXTS, _QUICK_CONTEXTS, _decode, oracles.attention, 33),
            layouts=False, slow_call_s=ATTENTION_CALL_S,
        ),
        OpCase(
            *("sdpa_prefill", SIGNED, _PROMPTS, _PROMPTS[:1], _prefill, oracles.attention, 5),
            layouts=False, prefill=True, slow_call_s=ATTENTION_CALL_S,
        ),
        OpCase(
            *("attention_prefill.grad", _UNPAIRED, _GRADIENT_PROMPTS, _GRADIENT_PROMPTS[:1]),
            *(gradient_inputs.attention_grad, gradient_oracles.attention_grad, 9),
            layouts=False, least_n=16, slow_call_s=ATTENTION_CALL_S,
        ),
        OpCase(
            *("linear.grad_x", SIGNED, _MATRICES[:3], _QUICK_MATRICES),
            *(gradient_inputs.linear_grad_x, gradient_oracles.linear_grad_x),
            constants=True, slow_call_s=GRADIENT_CALL_S,
        ),
        OpCase(
            *("linear.grad_weight", SIGNED, _TOKENS, _TOKENS[:1]),
            *(gradient_inputs.linear_grad_weight, gradient_oracles.linear_grad_weight, 33),
            micro_batches=True, slow_call_s=GRADIENT_CALL_S,
        ),
        OpCase(
            *("rms_norm.grad_x", SIGNED, _GRADIENT_ROWS, _GRADIENT_ROWS[:1]),
            *(gradient_inputs.rms_norm_grad_x, gradient_oracles.rms_norm_grad_x),
            constants=True, slow_call_s=GRADIENT_CALL_S,
        ),
        OpCase(
            *("rms_norm.grad_weight", SIGNED, _NORM_TOKENS, _NORM_TOKENS[:1]),
            *(gradient_inputs.rms_norm_grad_weight, gradient_oracles.rms_norm_grad_weight),
            micro_batches=True, slow_call_s=GRADIENT_CALL_S,
        ),
        OpCase(
            *("softmax.grad_x", SIGNED, _GRADIENT_ROWS, _GRADIENT_ROWS[:1]),
            *(gradient_inputs.softmax_grad_x, gradient_oracles.softmax_grad_x),
            slow_call_s=GRADIENT_CALL_S,
        ),
        OpCase(
            *("log_softmax.grad_x", SIGNED, _GRADIENT_ROWS, _GRADIENT_ROWS[:1]),
            *(gradient_inputs.softmax_grad_x, gradient_oracles.log_softmax_grad_x),
            slow_call_s=GRADIENT_CALL_S,
        ),
    )
}  # fmt: skip
