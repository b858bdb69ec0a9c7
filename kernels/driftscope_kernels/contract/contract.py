"""The numeric contract of every op: what fixes its bits, whichever implementation runs.

In: nothing. Out: CONTRACTS, one Contract per op. Every implementation gives these bits; the
documentation is rendered from here (`python -m driftscope_kernels.contract.page`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from driftscope_kernels.contract import bounds
from driftscope_kernels.contract.bounds import attention_bound
from driftscope_kernels.options import (
    KV_TILE,
    LANES,
    ROW_BLOCK,
    TP_SEGMENTS,
    VOCABULARY_TILE,
    AttentionOptions,
    LogprobOptions,
    NormOptions,
    RotaryOptions,
    SwigluOptions,
)


@dataclass(frozen=True, slots=True)
class Contract:
    op: str
    computes: str
    accumulates: str  # dtype of the accumulator, order of the sum, where it starts
    steps: tuple[str, ...]  # every operation in order; each is rounded to float32 unless it says so
    rounds: str  # to the dtype that is returned
    special: str  # NaN, infinities, empty sums
    gradients: tuple[str, ...]
    bound: Callable[..., Any] | None  # distance from the exact result; its docstring is the formula
    uses: tuple[str, ...] = ()  # programs of FUNCTIONS
    options: type | None = None


LANE_SUM = (
    f"float32, lane sum over {LANES} lanes: lane j starts at +0 and takes elements j, j+{LANES}, "
    f"j+{2 * LANES}, … in this order; then lane i + lane i+8, i + (i+4), i + (i+2), i + (i+1)"
)
ONCE = "Once, to nearest even, to the dtype of x."
ROW_BLOCKS = (
    f"in blocks of {ROW_BLOCK} rows, each block from +0 over its rows in order, the blocks added "
    f"in order to `main_grad`, or to +0 and then rounded once to the dtype of the parameter"
)
MAX_RULE = (
    "The maximum is NaN if an element is NaN; its sign of zero reaches no result. A NaN, a +∞ or a "
    "row of nothing but −∞ makes the whole row NaN."
)
SHIFT = "m = max x (order-free); d = x − m; e = exp(d)"

_LINEAR = Contract(
    op="linear",
    computes="y[m, n] = Σ_k x[m, k]·w[n, k] + b[n]. `matmul` is the same with w transposed.",
    accumulates="float32, one accumulator per output from +0, k ascending; never split by shape, "
    "batch or threads",
    steps=(
        "float32: acc = fma(x[k], w[k], acc) for k = 0 … K−1.",
        "float16: both widened to float32, which is exact, then the same.",
        "bfloat16: for each pair (2i, 2i+1), acc = fma⁰(x[2i+1], w[2i+1], acc), then "
        "acc = fma⁰(x[2i], w[2i], acc); an odd K is padded with one +0·+0. fma⁰ reads subnormal "
        "operands, acc too, as zeros of their sign, and returns zero of its sign where the result "
        "rounded to 24 bits with the exponent unbounded is below 2^-126: the instruction "
        "VDPBF16PS, bit for bit.",
        f"`tp_segments={TP_SEGMENTS}`: K in {TP_SEGMENTS} equal segments, each as above from +0 "
        "(bfloat16: padded on its own), merged ((s0+s1)+(s2+s3))+((s4+s5)+(s6+s7)). One of R = 1, "
        f"2, 4, 8 ranks holds {TP_SEGMENTS}/R segments. A K that is not a multiple of "
        f"{TP_SEGMENTS} is refused.",
        "acc + b, b widened to float32, if there is a bias.",
    ),
    rounds=ONCE,
    special="IEEE: 0·∞ and ∞ − ∞ are NaN. An empty sum is +0. Subnormal numbers are kept but for "
    "the products of bfloat16 above.",
    gradients=(
        "dx = linear(dy, wᵀ): row by row, n ascending.",
        f"dw: Σ_m dy[m, n]·x[m, k] {ROW_BLOCKS}. Within a block the rule of the dtype above holds, "
        "with m for k, unrounded.",
        f"db: Σ_m dy[m, n] by float32 additions, {ROW_BLOCKS}.",
    ),
    bound=bounds.linear,
)
_BMM = Contract(
    op="bmm",
    computes="y[i] = a[i]·b[i] for every matrix of the batch.",
    accumulates="as linear",
    steps=("linear(a[i], b[i]ᵀ) for each i.",),
    rounds=ONCE,
    special="As linear.",
    gradients=(
        "da[i] = dy[i]·b[i]ᵀ and db[i] = a[i]ᵀ·dy[i], by the same contract, n and m ascending. b "
        "counts as an activation: no row blocks.",
    ),
    bound=bounds.linear,
)
_RMS_NORM = Contract(
    op="rms_norm",
    computes="y = x / √(mean(x²) + eps)·w over the last dimension.",
    accumulates=LANE_SUM + "; each step fma(x, x, lane)",
    steps=(
        "s = Σ x²; v = s / K; r = 1 / √(v + eps): division, root and reciprocal each correctly "
        "rounded (no approximate rsqrt).",
        'u = x·r. `weight_multiply="after_cast"`: u is rounded to the dtype.',
        "y = u·w.",
    ),
    rounds="Once, to nearest even, to the dtype of x, after the rounding of u if that is asked "
    "for.",
    special="eps = 0 and a row of zeros: NaN. A row whose sum of squares overflows: zeros, NaN "
    "where x is infinite.",
    gradients=(
        "With u unrounded and g = dy·w: c = (Σ g·u) / K by the lane sum with fma(g, u, lane); "
        "dx = r·fma(−u, c, g), rounded once.",
        f"dw: Σ_rows dy·u (u as w met it in the forward pass) by fma, {ROW_BLOCKS}.",
    ),
    bound=bounds.rms_norm,
    options=NormOptions,
)
_ADD_RMS_NORM = Contract(
    op="add_rms_norm",
    computes="t = x + residual; returns rms_norm(t) and t.",
    accumulates="as rms_norm",
    steps=(
        'The norm reads t in float32, or, with `norm_reads="rounded_sum"`, t rounded to the dtype.',
        "Then as rms_norm.",
    ),
    rounds="The norm as rms_norm; t once.",
    special="As rms_norm.",
    gradients=(
        "dx = dresidual = (dx of rms_norm, unrounded) + dt in float32, rounded once.",
        "dw as rms_norm.",
    ),
    bound=bounds.rms_norm,
    options=NormOptions,
)
_SOFTMAX = Contract(
    op="softmax",
    computes="p = exp(x) / Σ exp(x) along any dimension of any stride.",
    accumulates=LANE_SUM,
    steps=(SHIFT + ".", "s = Σ e; q = 1 / s (division); p = e·q."),
    rounds=ONCE,
    special=MAX_RULE,
    gradients=(
        "p is computed again in float32; c = Σ dy·p by the lane sum with fma(dy, p, lane); "
        "dx = p·(dy − c), rounded once.",
    ),
    bound=bounds.softmax,
    uses=("exp",),
)
_LOG_SOFTMAX = Contract(
    op="log_softmax",
    computes="y = x − log Σ exp(x) along any dimension of any stride.",
    accumulates=LANE_SUM,
    steps=(SHIFT + ".", "s = Σ e; y = d − log(s)."),
    rounds=ONCE,
    special=MAX_RULE,
    gradients=(
        "y is computed again in float32; p = exp(y); c = Σ dy by the lane sum; dx = fma(−p, c, "
        "dy), rounded once.",
    ),
    bound=bounds.log_softmax,
    uses=("exp", "log"),
)
_LOGSUMEXP = Contract(
    op="logsumexp",
    computes="y = log Σ exp(x) along any dimension of any stride.",
    accumulates=LANE_SUM,
    steps=(SHIFT + ".", "s = Σ e; y = m + log(s); y = m where m is +∞ or −∞."),
    rounds=ONCE,
    special="NaN if an element is NaN; +∞ if one is +∞; −∞ of nothing but −∞ and of nothing.",
    gradients=("dx = p·dy with p = softmax(x) computed again in float32, rounded once.",),
    bound=bounds.logsumexp,
    uses=("exp", "log"),
)
_SUM = Contract(
    op="sum",
    computes="y = Σ x over any dimensions of any stride.",
    accumulates=LANE_SUM + ". The elements count in the order of the dimensions, the last one "
    "fastest, whatever the strides and the order in which the dimensions are named",
    steps=("lane = lane + x.",),
    rounds=ONCE,
    special="An empty sum is +0.",
    gradients=("dx = dy.",),
    bound=bounds.sum,
)
_MEAN = Contract(
    op="mean",
    computes="y = (Σ x) / n over any dimensions of any stride.",
    accumulates=_SUM.accumulates,
    steps=("As sum, then divided by n in float32.",),
    rounds=ONCE,
    special="The mean of nothing is NaN.",
    gradients=("dx = dy / n in float32, rounded once.",),
    bound=bounds.mean,
)
_SWIGLU = Contract(
    op="swiglu",
    computes="y = silu(g)·u, silu(g) = g / (1 + exp(−g)).",
    accumulates="nothing: element by element",
    steps=(
        "t = g / (1 + exp(−g)), a division.",
        '`silu="rounded"`: t is rounded to the dtype.',
        "y = t·u.",
    ),
    rounds="Once, to nearest even, to the dtype of g, after the rounding of t if that is asked "
    "for.",
    special="silu(−∞) is NaN (−∞ / ∞), as in torch; below about −88.7 it is −0.",
    gradients=(
        "With s = 1 / (1 + exp(−g)): dg = (dy·u)·(s·fma(g, 1 − s, 1)), rounded once.",
        "du = dy·t, t as it was, rounded once.",
    ),
    bound=bounds.swiglu,
    uses=("exp",),
    options=SwigluOptions,
)
_ROTARY = Contract(
    op="rotary",
    computes="o₁ = x₁·c − x₂·s, o₂ = x₂·c + x₁·s for the pairs (i, i + R/2), or (2i, 2i + 1) if "
    "`interleaved`; elements from R on are kept.",
    accumulates="nothing: pair by pair",
    steps=(
        '`table="rounded"`: c and s are rounded to the dtype of x.',
        '`arithmetic="fused"`: o₁ = fma(−x₂, s, x₁·c), o₂ = fma(x₁, s, x₂·c).',
        '`arithmetic="unfused"`: o₁ = x₁·c + (−x₂)·s, o₂ = x₂·c + x₁·s in float32.',
        '`arithmetic="model_dtype"`: as unfused, both products rounded to the dtype first.',
    ),
    rounds=ONCE,
    special="IEEE.",
    gradients=("dx = rotary(dy, c, −s) with the same options. c and s have none.",),
    bound=bounds.rotary,
    options=RotaryOptions,
)
_TOKEN_LOGPROB = Contract(
    op="token_logprob",
    computes="log softmax(h·Wᵀ / temperature)[target], the entropy and the top k, without holding "
    "[T, V].",
    accumulates=f"logits as linear; over the vocabulary in tiles of {VOCABULARY_TILE} columns, v "
    f"ascending, each tile by the lane sum ({LANE_SUM}), the tiles merged in order",
    steps=(
        'z: the accumulator of linear, rounded to the dtype of h if `logits="rounded"`, divided by '
        "the temperature in float32.",
        "Per tile m = max z; d = z − m; e = exp(d); s = Σ e; w = Σ e·d by fma(e, d, lane), d taken "
        "as +0 where e is 0. A tile of nothing but −∞ has s = w = +0.",
        "Merger of (m, s, w), so far, with (m′, s′, w′), the tile: M = max(m, m′); for either side "
        "δ = own maximum − M, +0 where they are equal; a = exp(δ) so far, b = exp(δ′) of the tile; "
        "s ← fma(s′, b, s·a); with v = fma(s, δ, w), v′ likewise, +0 where a or b is 0: "
        "w ← fma(v′, b, v·a). It starts from (−∞, +0, +0).",
        "log-probability = (z[target] − m) − log(s); entropy = log(s) − w / s; the top k are the "
        "largest z, of equal ones the lower id first, given as (z − m) − log(s).",
    ),
    rounds="Results are float32.",
    special="A logit that is NaN or +∞, or nothing but −∞, makes the row NaN; its top ids mean "
    "nothing then.",
    gradients=(
        "z is computed again tile by tile. l = (z − m) − log(s); p = exp(l); with g and g_H the "
        "gradients of log-probability and entropy H: dz = fma(−p, g, g at the target, else +0), "
        "then fma(−(p·g_H), l + H, dz), l + H taken as +0 where p is 0; then divided by the "
        "temperature. dz stays in float32.",
        "dh = Σ_v dz·W by the float32 rule of linear, v ascending through all tiles, rounded once.",
        f"dW: Σ_t dz·h by the float32 rule of linear, {ROW_BLOCKS}.",
    ),
    bound=bounds.token_logprob,
    uses=("exp", "log"),
    options=LogprobOptions,
)

_ATTENTION = Contract(
    op="attention",
    computes="softmax over the visible keys of t, times v. Query i of the Q last of L tokens is at "
    "position p = L − Q + i and sees the keys max(0, p − window + 1) … p; head h reads key head "
    "h // (H / KH). Keys lie one after another or in pages; that changes nothing.",
    accumulates="float32; q·k in one accumulator from +0 by fma, d ascending; P·V in one "
    "accumulator "
    "per output by fma, visible keys ascending; the sum of exponentials in 16 lanes, lane = "
    "position "
    "mod 16, merged by the fixed tree at the end",
    steps=(
        "t = (q·k)·scale; with a soft cap t = cap·tanh(t / cap).",
        f"Tiles of {KV_TILE} keys, counted from position 0 of the sequence, ascending. Per tile: "
        "m′ = max(m, visible t), NaN passed over; c = m′, or +0 where m′ is −∞; if m′ > m, the "
        "lanes "
        "and the output are multiplied by exp(m − c); e = exp(t − c); lane += e; "
        "output = fma(e, v, output).",
        '`probabilities="rounded"`: e is rounded to the dtype before it meets v, not in the sum.',
        "y = output / sum, a division.",
    ),
    rounds="Once, to nearest even, to the dtype of q.",
    special="Keys that a row does not see are left out by position, tile or key, whatever they "
    "hold. "
    "It starts from m = −∞ and output = +0. A score that is NaN or +∞, or nothing but −∞, makes "
    "the "
    "row NaN.",
    gradients=(
        "m and the sum of the forward pass are computed again; p = exp(t − c)·(1 / sum); "
        "Δ = lane_dot(dy, y), y unrounded; dp = dy·v, d ascending; ds = p·(dp − Δ), times "
        "fma(−h, h, 1) with a soft cap (h = tanh), times scale. The rounding of e is passed "
        "through.",
        "dq = Σ ds·k, keys ascending: row by row.",
        "dk = Σ ds·q and dv = Σ p·dy over the rows that see the key, query ascending, within it "
        "head "
        "of the group ascending, one fma chain from +0: they depend on the sequence's own queries "
        "only. Cutting the queries of a sequence into several calls is not promised for them.",
    ),
    bound=attention_bound,
    uses=("exp", "tanh"),
    options=AttentionOptions,
)

CONTRACTS: Mapping[str, Contract] = {
    contract.op: contract
    for contract in (
        _LINEAR,
        _BMM,
        _RMS_NORM,
        _ADD_RMS_NORM,
        _SOFTMAX,
        _LOG_SOFTMAX,
        _LOGSUMEXP,
        _SUM,
        _MEAN,
        _SWIGLU,
        _ROTARY,
        _TOKEN_LOGPROB,
        _ATTENTION,
    )
}
