"""Variants of attention that rounding alone tells apart, the ways of the known kernels first.

In: what the attention computes with. Out: named variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from driftscope_kernels.compare_ops import attention_ways as ways
from driftscope_kernels.compare_ops.attention_tiles import Tiles, fixed, tiled
from driftscope_kernels.compare_ops.attention_ways import AttentionVariant, Plain, variant
from driftscope_kernels.compare_ops.parameters import AttentionParameters
from driftscope_kernels.compare_ops.variant import Reason
from driftscope_kernels.options import TRANSFORMERS_ATTENTION, VLLM_ATTENTION

TILES: Final = (16, 32, 64, 128, 256, 512)  # keys: what flash kernels of CPUs and GPUs take
FLASH_TILE: Final = 64
PARTS: Final = (2, 4, 8)  # spans of a split key-value cache

EAGER: Final = "softmax(q @ k.mT * scale + mask, dtype=torch.float32).to(q.dtype) @ v"
FLOAT32: Final = (
    "F.scaled_dot_product_attention(q.float() * scale, k.float(), v.float(), scale=1.0)"
)
FLASH: Final = "acc = acc * exp(m - m_new) + exp(s - m_new) @ v[tile]; out = acc / sum"

SDPA_VARIANTS: Final = (
    variant(
        "sdpa",
        "primitive",
        "torch's scaled_dot_product_attention, causal, as transformers calls it: probabilities are "
        "rounded to the dtype before they multiply the values",
        "F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)",
        ways.sdpa,
    ),
    variant(
        "sdpa_masked",
        "reduction_order",
        "torch's scaled_dot_product_attention with a mask and repeated keys and values",
        "F.scaled_dot_product_attention(q, repeat_kv(k), repeat_kv(v), attn_mask=mask)",
        ways.sdpa_masked,
    ),
)
OTHER_SDPA_VARIANTS: Final = (
    variant(
        "sdpa_float32",
        "rounding_point",
        "torch's scaled_dot_product_attention in float32, rounded once at the end",
        "F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True).to(dtype)",
        ways.sdpa_float32,
    ),
    variant(
        "sdpa_math",
        "primitive",
        "torch's scaled_dot_product_attention by its math backend",
        "with sdpa_kernel(SDPBackend.MATH): F.scaled_dot_product_attention(q, k, v)",
        ways.sdpa_math,
    ),
    variant(
        "sdpa_decoded",
        "reduction_order",
        "torch's scaled_dot_product_attention for one query at a time over the cached keys",
        "F.scaled_dot_product_attention(q[:, :, -1:], k, v, scale=scale, enable_gqa=True)",
        ways.sdpa_decoded,
    ),
)
EAGER_VARIANT: Final = variant(
    "eager",
    "rounding_point",
    "transformers' eager attention: scores and probabilities are rounded to the dtype",
    EAGER,
    ways.plain(Plain()),
)
VLLM_VARIANTS: Final = (
    variant(
        "vllm_cpu",
        "rounding_point",
        "vLLM's CPU kernel with AVX-512 and bfloat16 instructions: scores, softmax and P·V stay in "
        "float32, one fused multiply-add after another, and the result is rounded once",
        FLOAT32 + ".to(dtype)",
        tiled(ways.VLLM),
    ),
    variant(
        "vllm_cpu_decode",
        "reduction_order",
        "vLLM's CPU kernel for one query at a time: larger tiles of keys than in a prefill",
        FLOAT32 + ".to(dtype)  # q [heads, 1, head_dim]",
        tiled(ways.VLLM_DECODE),
    ),
    variant(
        "vllm_cpu_avx512",
        "rounding_point",
        "vLLM's CPU kernel with AVX-512 without bfloat16 instructions: all in float32, the result "
        "cut off to bfloat16, not rounded",
        "(out.view(torch.int32) & -65536).view(torch.float32).to(torch.bfloat16)",
        tiled(ways.VLLM_AVX512),
    ),
    variant(
        "vllm_cpu_avx2",
        "primitive",
        "vLLM's CPU kernel with AVX2: no fused multiply-add, the C library's expf, the result cut "
        "off to bfloat16",
        "acc = acc + p[j] * v[j]  # products rounded",
        tiled(ways.VLLM_AVX2),
    ),
    variant(
        "vllm_cpu_amx",
        "rounding_point",
        "vLLM's CPU kernel with AMX: bfloat16 products, the probabilities rounded before P·V",
        "exp(s - m).to(torch.bfloat16) @ v",
        tiled(ways.VLLM_AMX),
    ),
)
OWN_VARIANTS: Final = tuple(
    variant(
        f"driftscope_{name}",
        "reduction_order" if name == "vllm" else "rounding_point",
        f"driftscope's own kernel, {says}",
        f"driftscope_kernels.ops.attention(q, k, v, ..., options={name.upper()}_ATTENTION)",
        ways.own(options),
    )
    for name, options, says in (
        ("vllm", VLLM_ATTENTION, "probabilities in float32"),
        ("transformers", TRANSFORMERS_ATTENTION, "probabilities rounded to the dtype"),
    )
)
PLAIN_VARIANTS: Final = (
    variant(
        "float32",
        "rounding_point",
        "all in float32, all keys at once, rounded once at the end",
        "(softmax(q.float() @ k.float().mT * scale) @ v.float()).to(dtype)",
        ways.plain(Plain(scores="float32", probabilities="float32")),
    ),
    variant(
        "eager_float32_softmax",
        "rounding_point",
        "eager attention whose probabilities stay in float32",
        "(softmax(q @ k.mT * scale, dtype=torch.float32) @ v.float()).to(dtype)",
        ways.plain(Plain(probabilities="float32")),
    ),
    variant(
        "float32_scores",
        "rounding_point",
        "scores in float32, probabilities rounded to the dtype before P·V",
        "softmax(q.float() @ k.float().mT * scale).to(dtype) @ v",
        ways.plain(Plain(scores="float32")),
    ),
    variant(
        "eager_scaled_query",
        "rounding_point",
        "eager attention with the scale on the query in the dtype, not on the scores",
        "softmax((q * scale) @ k.mT, dtype=torch.float32).to(q.dtype) @ v",
        ways.plain(Plain(scale_on="query")),
    ),
    variant(
        "float32_scaled_query",
        "rounding_point",
        "all in float32 but the query, which is rounded to the dtype after the scale",
        "(softmax((q * scale).float() @ k.float().mT) @ v.float()).to(dtype)",
        ways.plain(Plain(scores="float32", scale_on="query", probabilities="float32")),
    ),
    variant(
        "normalised_after",
        "rounding_point",
        "exponentials are rounded to the dtype and P·V is divided by their sum",
        "(exp(s - s.amax()).to(dtype) @ v) / exp(s - s.amax()).sum()",
        ways.plain(Plain(scores="float32", normalise="after")),
    ),
    variant(
        "float32_normalised_after",
        "reduction_order",
        "all in float32, P·V divided by the sum of the exponentials",
        "(exp(s - s.amax()) @ v.float()) / exp(s - s.amax()).sum()",
        ways.plain(Plain(scores="float32", probabilities="float32", normalise="after")),
    ),
)


def flash_variants() -> Sequence[AttentionVariant]:
    """Running softmax in float32: by tile, and for one tile by exponential, scale and rounding."""
    found = [
        _flash(f"flash_{tile}", f"in tiles of {tile} keys", Tiles(fixed(tile))) for tile in TILES
    ]
    base = Tiles(fixed(FLASH_TILE))
    for tile in (FLASH_TILE, 2 * FLASH_TILE):
        rounded = replace(base, schedule=fixed(tile), probabilities="rounded")
        found.append(_flash(f"flash_{tile}_rounded", "P rounded to the dtype", rounded))
        power = replace(rounded, exp="exp2")
        found.append(_flash(f"flash_{tile}_exp2", "exp2(x · log2 e), P rounded", power))
    others = {
        "exp2_float32": ("exp2(x · log2 e)", replace(base, exp="exp2")),
        "u20": ("torch's exp_u20", replace(base, exp="u20")),
        "scaled_query": ("the scale on the query in float32", replace(base, scale_on="query")),
        "fused": ("one fused multiply-add after another", replace(base, product="chain")),
    }
    found += [_flash(f"flash_{FLASH_TILE}_{name}", *how) for name, how in others.items()]
    for parts in PARTS:
        says = f"keys split over {parts} parts that are merged by their sums"
        found.append(_flash(f"split_{parts}", says, replace(base, parts=parts)))
        exact = replace(ways.VLLM, parts=parts)
        found.append(_flash(f"vllm_cpu_split_{parts}", "vLLM's CPU kernel, " + says, exact))
    return found


def _flash(name: str, says: str, how: Tiles) -> AttentionVariant:
    reason: Reason = "rounding_point" if how.probabilities == "rounded" else "reduction_order"
    return variant(name, reason, f"running softmax in float32, {says}", FLASH, tiled(how))


def variants_of(p: AttentionParameters) -> Sequence[AttentionVariant]:
    """Those of the kernel that the side names come first. torch's own kernel has no cap."""
    sdpa = () if p.softcap is not None else SDPA_VARIANTS
    other = () if p.softcap is not None else OTHER_SDPA_VARIANTS
    known = (*sdpa, EAGER_VARIANT, *VLLM_VARIANTS)
    kernel = (p.kernel or "").lower()
    prefix = (
        "vllm"
        if "cpu_attn" in kernel
        else next((name for name in ("sdpa", "eager") if name in kernel), None)
    )
    first = [one for one in known if prefix is not None and one.name.startswith(prefix)]
    rest = [one for one in known if one not in first]
    return [*first, *rest, *other, *PLAIN_VARIANTS, *OWN_VARIANTS, *flash_variants()]
