"""Attention that is wrong: another mask, scale, cap, mapping of heads, or cache of keys and values.

In: what the attention computes with. Out: variants, each in the arithmetic of the kernel that the
side says it ran, so that a side with that fault alone equals one bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops import attention_ways as ways
from driftscope_kernels.compare_ops.attention_heads import Mask, Way, by_head, causal, flat, run_way
from driftscope_kernels.compare_ops.attention_tiles import tiled
from driftscope_kernels.compare_ops.attention_ways import AttentionVariant, Plain
from driftscope_kernels.compare_ops.parameters import AttentionParameters
from driftscope_kernels.compare_ops.variant import Inputs, Outputs, Reason, Variant

#: Keys and values of the cache, [tokens, kv_heads · head_dim], as a faulty one gives them back.
Cache = Callable[[Tensor, AttentionParameters, torch.dtype], Tensor]

PAGES: Final = (16, 32, 64, 128)  # tokens of a page of the cache in vLLM and SGLang
FLOAT8: Final = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def way_of(p: AttentionParameters) -> Way:
    """The arithmetic of the kernel that the side names, float32 where it names none known."""
    kernel = (p.kernel or "").lower()
    if "cpu_attn" in kernel:
        return tiled(ways.vllm_here())
    if "sdpa" in kernel and p.softcap is None:
        return ways.sdpa
    if "eager" in kernel or "sdpa" in kernel:
        return ways.plain(Plain())
    return ways.plain(Plain(scores="float32", probabilities="float32"))


def fault(
    name: str,
    reason: Reason,
    says: str,
    code: str,
    *,
    mask: Mask = causal,
    change: Callable[[AttentionParameters], AttentionParameters] = lambda p: p,
    keys: Cache = lambda x, p, dtype: x,
    values: Cache = lambda x, p, dtype: x,
) -> AttentionVariant:
    def run(inputs: Inputs, p: AttentionParameters, dtype: torch.dtype) -> Outputs:
        changed = change(p)
        tensors = {
            "q": inputs["q"],
            "k": keys(inputs["k"], p, dtype),
            "v": values(inputs["v"], p, dtype),
        }
        return run_way(way_of(changed), replace(inputs, tensors=tensors), changed, dtype, mask)

    return Variant(name, reason, says, code, run)


def faults(p: AttentionParameters) -> Sequence[AttentionVariant]:
    return [*_masks(p), *_numbers(p), *_heads(p), *_caches(p)]


def _masks(p: AttentionParameters) -> list[AttentionVariant]:
    def all_keys(query: Tensor, key: Tensor, window: int | None) -> Tensor:
        return (key >= 0).expand(len(query), -1)

    def ahead(query: Tensor, key: Tensor, window: int | None) -> Tensor:
        return causal(query + 1, key, window)

    def behind(query: Tensor, key: Tensor, window: int | None) -> Tensor:
        # The first query has no key but its own.
        return causal((query - 1).clamp(min=0), key, window)

    def headless(query: Tensor, key: Tensor, window: int | None) -> Tensor:
        return causal(query, key, window) & ((key > 0) | (query == 0))

    found = [
        fault("non_causal", "mask", "every token sees the whole sequence", "is_causal=False",
              mask=all_keys),
        fault("one_ahead", "mask", "a token sees the one after it", "mask.tril(1)", mask=ahead),
        fault("own_key_missing", "cache", "a token's own key is not in the cache yet",
              "keys = cache[:position]  # position + 1", mask=behind),
        fault("first_token_missing", "mask", "the first token is seen by itself alone",
              "mask[1:, 0] = -inf", mask=headless),
        leak(p),
    ]  # fmt: skip
    if p.window is not None:
        found += [window_fault(p.window + step) for step in (-1, 1) if p.window + step > 0]
        found.append(
            fault("window_ignored", "mask", f"the window of {p.window} is ignored",
                  "sliding_window=None", change=lambda p: replace(p, window=None))
        )  # fmt: skip
    return found


def window_fault(window: int) -> AttentionVariant:
    return fault(
        f"window_{window}",
        "mask",
        f"a token sees {window} keys, its own among them",
        f"sliding_window={window}",
        change=lambda p: replace(p, window=window),
    )


def leak(p: AttentionParameters) -> AttentionVariant:
    """Sequences packed one after another are taken for one."""

    def run(inputs: Inputs, p: AttentionParameters, dtype: torch.dtype) -> Outputs:
        one = replace(inputs, cu_seqlens=inputs.cu_seqlens[[0, -1]])
        return run_way(way_of(p), one, p, dtype)

    return Variant(
        "packed_leak",
        "mask",
        "tokens see the sequences packed before theirs",
        "cu_seqlens=[0, total]",
        run,
    )


def scale_fault(scale: float, name: str, says: str) -> AttentionVariant:
    code = f"scale={scale!r}"
    return fault(name, "formula", says, code, change=lambda p: replace(p, scale=scale))


def softcap_fault(softcap: float) -> AttentionVariant:
    return fault(
        f"softcap_{softcap:g}",
        "formula",
        f"scores are capped at {softcap:g}",
        f"scores = {softcap:g} * tanh(scores / {softcap:g})",
        change=lambda p: replace(p, softcap=softcap),
    )


def _numbers(p: AttentionParameters) -> list[AttentionVariant]:
    usual = p.head_dim**-0.5
    scales = {
        "scale_of_head_dim": (usual, "the scale is 1 / √head_dim"),
        "scale_missing": (1.0, "scores are not scaled"),
        "scale_twice": (p.scale**2, "scores are scaled twice"),
        "scale_of_width": ((p.heads * p.head_dim) ** -0.5, "the scale is 1 / √(heads · head_dim)"),
    }
    found = [
        scale_fault(scale, name, says) for name, (scale, says) in scales.items() if scale != p.scale
    ]
    if p.softcap is not None:
        found.append(fault("softcap_dropped", "formula", f"scores are not capped at {p.softcap:g}",
                           "softcap=None", change=lambda p: replace(p, softcap=None)))  # fmt: skip
    return found


def _heads(p: AttentionParameters) -> list[AttentionVariant]:
    if 1 < p.kv_heads < p.heads:
        mapping = tuple(head % p.kv_heads for head in range(p.heads))
        return [
            heads_fault(mapping, mapping, "heads_interleaved", "formula",
                        "query heads take turns with the key heads, not in blocks")
        ]  # fmt: skip
    return []


def heads_fault(
    keys: Sequence[int], values: Sequence[int], name: str, reason: Reason, says: str
) -> AttentionVariant:
    """Head h reads the keys of key head keys[h] and the values of values[h]."""

    def run(inputs: Inputs, p: AttentionParameters, dtype: torch.dtype) -> Outputs:
        k, v = (by_head(inputs[name], p.head_dim) for name in "kv")
        tensors = {"q": inputs["q"], "k": flat(k[list(keys)]), "v": flat(v[list(values)])}
        full = replace(p, kv_heads=p.heads)
        return run_way(way_of(p), replace(inputs, tensors=tensors), full, dtype)

    return Variant(name, reason, says, f"k = k[:, {list(keys)}]; v = v[:, {list(values)}]", run)


def _caches(p: AttentionParameters) -> list[AttentionVariant]:
    found = [
        fault(f"cache_{name}", "cache", f"the cache holds keys and values in {name}",
              f"k.to({dtype}).to(k.dtype); v.to({dtype}).to(v.dtype)",
              keys=_stored(dtype), values=_stored(dtype))
        for name, dtype in {**FLOAT8, "bfloat16": torch.bfloat16, "float16": torch.float16}.items()
    ]  # fmt: skip
    layouts: dict[str, tuple[str, Cache]] = {
        "heads_reversed": ("the heads are in reverse", lambda x, p, dtype: _by_heads(x, p, -1)),
        "heads_shifted": ("the heads are shifted by one", lambda x, p, dtype: _by_heads(x, p, 1)),
        "transposed": ("[head, feature] is read as [feature, head]", _transposed),
    }
    for page in PAGES:
        rows = f"rows of a page of {page} tokens"
        layouts[f"page_{page}_reversed"] = (f"{rows} are in reverse", _reversed_rows(page))
        layouts[f"page_{page}_rotated"] = (f"{rows} are shifted by one", _rotated_rows(page))
        layouts[f"page_{page}_head_major"] = (
            f"[head, token] of a page of {page} tokens is read as [token, head]",
            _head_major(page),
        )
    one_head = {"heads_reversed", "heads_shifted", "transposed"}
    for name, (says, layout) in layouts.items():
        if p.kv_heads == 1 and (name in one_head or name.endswith("head_major")):
            continue  # the same with one head
        if p.kv_heads == 2 and name == "heads_shifted":
            continue  # the same as in reverse
        for which, k, v in (
            ("keys", layout, _kept),
            ("values", _kept, layout),
            ("both", layout, layout),
        ):
            found.append(
                fault(f"cache_{which}_{name}", "cache", f"of the cached {which}, {says}",
                      f"cache layout of {which}: {name}", keys=k, values=v)
            )  # fmt: skip
    return found


def _kept(x: Tensor, p: AttentionParameters, dtype: torch.dtype) -> Tensor:
    return x


def _stored(held: torch.dtype) -> Cache:
    return lambda x, p, dtype: x.to(dtype).to(held).to(dtype)


def _by_heads(x: Tensor, p: AttentionParameters, step: int) -> Tensor:
    heads = x.reshape(len(x), p.kv_heads, p.head_dim)
    moved = heads.flip(1) if step < 0 else heads.roll(step, 1)
    return moved.reshape(x.shape)


def _transposed(x: Tensor, p: AttentionParameters, dtype: torch.dtype) -> Tensor:
    return x.reshape(len(x), p.kv_heads, p.head_dim).transpose(1, 2).reshape(x.shape)


def _paged(x: Tensor, page: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([change(rows) for rows in x.split(page)])  # type: ignore[no-untyped-call]


def _reversed_rows(page: int) -> Cache:
    return lambda x, p, dtype: _paged(x, page, lambda rows: rows.flip(0))


def _rotated_rows(page: int) -> Cache:
    return lambda x, p, dtype: _paged(x, page, lambda rows: rows.roll(1, 0))


def _head_major(page: int) -> Cache:
    def change(rows: Tensor, p: AttentionParameters) -> Tensor:
        return rows.reshape(p.kv_heads, len(rows), p.head_dim).transpose(0, 1).reshape(rows.shape)

    return lambda x, p, dtype: _paged(x, page, lambda rows: change(rows, p))
