"""Ways to compute a linear layer that rounding alone tells apart, each exact in its bits.

In: x, weight and bias. Out: variants, the plainest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import LinearParameters
from driftscope_kernels.compare_ops.variant import Inputs, Outputs, Reason, Variant
from driftscope_kernels.cpu.linear import linear as chained
from driftscope_kernels.cpu.onednn import has_onednn

#: x [tokens, in], weight [out, in], bias [out] or None, dtype of the result.
Way = Callable[[Tensor, Tensor, Tensor | None, torch.dtype], Tensor]

#: Lengths along K after which matrix kernels start a new accumulator: MKL's float32 takes 192 on
#: AVX-512 and oneDNN's 512 or 1,024 (read by `trees`), GPU tiles 16 to 256.
CHAINS: Final = (16, 32, 64, 128, 192, 256, 384, 512, 1024)
#: Ranks of tensor parallelism, each with its part of K.
RANKS: Final = (2, 4, 8)
#: Rows at once; kernels for one row (decode) and for tiles add in other orders.
ROWS: Final = (1, 32)
#: TF32 keeps 10 of float32's 23 bits after the point (NVIDIA A100 whitepaper).
TF32_DROPPED_BITS: Final = 13
#: K of one HMMA instruction, after which an fp16 accumulator is rounded (PTX mma.m16n8k16).
HMMA_K: Final = 16
#: oneDNN takes a single row by another kernel, which vLLM's packed weights do not.
ONEDNN_LEAST_ROWS: Final = 2


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The library's product, everything in the dtype of the result."""
    return F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def variant(name: str, reason: Reason, says: str, code: str, way: Way) -> Variant[LinearParameters]:
    def run(inputs: Inputs, parameters: LinearParameters, dtype: torch.dtype) -> Outputs:
        return (way(inputs["x"], parameters.weight, parameters.bias, dtype),)

    return Variant(name, reason, says, code, run)


def variants(parameters: LinearParameters) -> Iterator[Variant[LinearParameters]]:
    yield variant(
        "library", "reduction_order", "the product is torch's own", "F.linear(x, w, b)", plain
    )
    yield variant(
        "onednn",
        "reduction_order",
        "the product is oneDNN's, which adds in other blocks of K than MKL",
        'torch.ops.mkldnn._linear_pointwise(x, w, b, "none", [], "")',
        onednn,
    )
    yield variant(
        "no_onednn",
        "reduction_order",
        "the product is torch's without oneDNN",
        "with torch.backends.mkldnn.flags(enabled=False): F.linear(x, w, b)",
        without_onednn,
    )
    yield from _rounded_once()
    if parameters.bias is not None:
        yield variant(
            "bias_after",
            "rounding_point",
            "the product is rounded before the bias is added",
            "F.linear(x, w) + b",
            lambda x, w, b, dtype: _biased(plain(x, w, None, dtype), b, dtype),
        )
    for rows in ROWS:
        yield variant(
            f"rows_{rows}",
            "reduction_order",
            "rows are computed one at a time" if rows == 1 else f"{rows} rows are computed at once",
            f"torch.cat([F.linear(part, w, b) for part in x.split({rows})])",
            _by_rows(rows),
        )
    yield from _orders(parameters.weight.shape[1])
    yield from _narrower()


def _rounded_once() -> Iterator[Variant[LinearParameters]]:
    yield variant(
        "float32",
        "rounding_point",
        "the product is float32 throughout and rounded once",
        "(x.float() @ w.float().t() + b.float()).to(dtype)",
        lambda x, w, b, dtype: _biased(x.float() @ w.float().t(), b, torch.float32).to(dtype),
    )
    yield variant(
        "correctly_rounded",
        "rounding_point",
        "the product is float64 throughout and rounded once",
        "(x.double() @ w.double().t() + b.double()).to(dtype)",
        lambda x, w, b, dtype: _biased(x.double() @ w.double().t(), b, torch.float64).to(dtype),
    )


def _orders(k: int) -> Iterator[Variant[LinearParameters]]:
    for length in (*(length for length in CHAINS if length < k), k):
        blocks = "in one float32 accumulator" if length == k else f"in blocks of {length}"
        yield variant(
            f"chains_{length}" if length < k else "one_chain",
            "reduction_order",
            f"K is added {blocks}, left to right",
            f"sum(fma chain of x[:, k:k+{length}] · w[:, k:k+{length}], float32, for k in order)",
            _in_chains(length),
        )
    for ranks in RANKS:
        if k % ranks:
            continue
        yield variant(
            f"split_{ranks}",
            "reduction_order",
            f"K is split in {ranks} parts that are added in float32",
            f"sum(x_i.float() @ w_i.float().t() for {ranks} parts of K).to(dtype)",
            _split(ranks, torch.float32),
        )
        yield variant(
            f"ranks_{ranks}",
            "rounding_point",
            f"K is split over {ranks} ranks whose sums are rounded before they are added",
            f"sum(F.linear(x_i, w_i) for {ranks} parts of K)",
            _split(ranks, None),
        )


def _narrower() -> Iterator[Variant[LinearParameters]]:
    for short, narrow in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        yield variant(
            f"{short}_result",
            "rounding_point",
            f"the result is rounded to {short}",
            f"F.linear(x, w, b).to({narrow}).to(dtype)",
            _result_in(narrow),
        )
        yield variant(
            f"{short}_weight",
            "dtype",
            f"the weight is rounded to {short}",
            f"F.linear(x, w.to({narrow}).to(dtype), b)",
            _weight_in(narrow),
        )
        yield variant(
            f"{short}_product",
            "dtype",
            f"the product is computed in {short}, as under autocast",
            f"F.linear(x.to({narrow}), w.to({narrow}), b).to(dtype)",
            _product_in(narrow),
        )
    for per_row in (False, True):
        scaled = "per output row" if per_row else "with one scale"
        yield variant(
            "fp8_weight_rows" if per_row else "fp8_weight",
            "dtype",
            f"the weight is rounded to fp8 (e4m3), {scaled}",
            "F.linear(x, (w / s).to(torch.float8_e4m3fn).to(dtype) * s, b)",
            _weight_through_fp8(per_row),
        )
    yield variant(
        "tf32",
        "dtype",
        "inputs and weight are rounded to TF32",
        "torch.backends.cuda.matmul.allow_tf32 = True",
        lambda x, w, b, dtype: _biased(to_tf32(x) @ to_tf32(w).t(), b, torch.float32).to(dtype),
    )
    yield variant(
        "fp16_accumulator",
        "dtype",
        f"sums are kept in fp16, rounded after every {HMMA_K} products",
        "torch.backends.cuda.matmul.allow_fp16_accumulation = True",
        in_fp16_accumulator,
    )


def _result_in(narrow: torch.dtype) -> Way:
    return lambda x, w, b, dtype: plain(x, w, b, dtype).to(narrow).to(dtype)


def _weight_in(narrow: torch.dtype) -> Way:
    return lambda x, w, b, dtype: plain(x, w.to(narrow), b, dtype)


def _product_in(narrow: torch.dtype) -> Way:
    return lambda x, w, b, dtype: plain(x, w, b, narrow).to(dtype)


def _weight_through_fp8(per_row: bool) -> Way:
    return lambda x, w, b, dtype: plain(x, through_fp8(w, per_row), b, dtype)


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """As vLLM on CPU has it: bit for bit in float32 up to K = 1,024, or with two rows or more."""
    if not has_onednn(dtype):
        return plain(x, weight, bias, dtype)
    rows = x.to(dtype)
    if len(rows) < ONEDNN_LEAST_ROWS:
        rows = rows.repeat(ONEDNN_LEAST_ROWS, 1)
    wide = None if bias is None else bias.to(dtype)
    y = torch.ops.mkldnn._linear_pointwise(rows, weight.to(dtype), wide, "none", [], "")
    return y[: len(x)]  # type: ignore[no-any-return]


def without_onednn(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    # `torch.backends.mkldnn.flags` also sets TF32 for oneDNN, and warns where there is none.
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        return plain(x, weight, bias, dtype)
    finally:
        torch._C._set_mkldnn_enabled(before)


def in_chains(x: Tensor, weight: Tensor, length: int) -> Tensor:
    """float32: one fused multiply-add after another within blocks of K, then blocks in order."""
    pairs = zip(*_blocks(x, weight, length), strict=True)
    first, *others = (chained(part.contiguous(), other.contiguous()) for part, other in pairs)
    total = first
    for part in others:
        total = total + part
    return total


def _in_chains(length: int) -> Way:
    def way(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        return _biased(in_chains(x, weight, length), bias, torch.float32).to(dtype)

    return way


def _by_rows(rows: int) -> Way:
    def way(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        return torch.cat([plain(part, weight, bias, dtype) for part in torch.split(x, rows)])

    return way


def _split(parts: int, between: torch.dtype | None) -> Way:
    """Partial sums in `between`, or in the dtype of the result."""

    def way(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        kept = between or dtype
        pairs = zip(x.chunk(parts, 1), weight.chunk(parts, 1), strict=True)
        sums: Sequence[Tensor] = [plain(part, other, None, kept) for part, other in pairs]
        total = sums[0]
        for one in sums[1:]:
            total = total + one
        return _biased(total, bias, kept).to(dtype)

    return way


def through_fp8(weight: Tensor, per_row: bool) -> Tensor:
    """float32: rounded to e4m3 after a scale that makes the largest element its largest number."""
    wide = weight.float()
    largest = wide.abs().amax(1, keepdim=True) if per_row else wide.abs().max()
    scale = (largest / torch.finfo(torch.float8_e4m3fn).max).clamp_min(
        torch.finfo(torch.float32).tiny
    )
    return (wide / scale).to(torch.float8_e4m3fn).float() * scale


def to_tf32(values: Tensor) -> Tensor:
    """float32, to nearest, ties away from zero: as `cvt.rna.tf32.f32`."""
    bits = values.float().view(torch.int32)
    half = 1 << (TF32_DROPPED_BITS - 1)
    return ((bits + half) & -(1 << TF32_DROPPED_BITS)).view(torch.float32)


def in_fp16_accumulator(
    x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    total = x.new_zeros((len(x), len(weight)), dtype=torch.float16)
    pairs = zip(*_blocks(x, weight, HMMA_K), strict=True)
    for part, other in pairs:
        total = (total.float() + part @ other.t()).half()
    return _biased(total.to(dtype), bias, dtype)


def _blocks(x: Tensor, weight: Tensor, length: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """float32, along K."""
    return torch.split(x.float(), length, 1), torch.split(weight.float(), length, 1)


def _biased(total: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return total if bias is None else total + bias.to(dtype)
