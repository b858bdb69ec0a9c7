"""vLLM's RotaryEmbedding, and the kinds of it that only change its tables, through ours.

In: positions [T], query [T, heads·D], key or None. Out: both turned.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from driftscope_kernels.cpu.backend import operators
from driftscope_kernels.cpu.rotary import ARITHMETIC, rotary
from driftscope_kernels.vllm_plugin import patches, rounding

Tables = tuple[Tensor, Tensor]


def route() -> None:
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    patches.replace(RotaryEmbedding, "forward_cpu", forward)
    patches.replace(RotaryEmbedding, "forward_native", forward)


def forward(
    layer: Any, positions: Tensor, query: Tensor, key: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """As RotaryEmbedding.forward_cpu, but query and key stay as they were."""
    tables = _tables(layer, positions.flatten(), query)
    turned = _turned(layer, query, tables)
    return turned, None if key is None else _turned(layer, key, tables)


def _turned(layer: Any, x: Tensor, tables: Tables) -> Tensor:
    heads = x.view(len(tables[0]), -1, layer.head_size)
    interleaved, built = not layer.is_neox_style, operators()
    choices = rounding.in_use().rotary
    options = choices.interleaved if interleaved else choices.halves
    if built is None:
        return rotary(heads, *tables, interleaved=interleaved, options=options).view(x.shape)
    y: Tensor = built.rotary.default(
        heads, *tables, interleaved, ARITHMETIC[options.arithmetic], ""
    )
    return y.view(x.shape)


def _tables(layer: Any, positions: Tensor, query: Tensor) -> Tables:
    """Cosines and sines [T, R/2] in the dtype of the query; looked up once in a forward pass."""
    from vllm.forward_context import get_forward_context, is_forward_context_available

    cache = layer._match_cos_sin_cache_dtype(query)
    if not is_forward_context_available():
        return _looked_up(cache, positions)
    # A context lives for one pass, in which all layers read the same positions.
    known: dict[tuple[int, int, int], Tables]
    known = get_forward_context().additional_kwargs.setdefault("driftscope_rotary", {})
    place = (cache.data_ptr(), positions.data_ptr(), len(positions))
    if place not in known:
        known[place] = _looked_up(cache, positions)
    return known[place]


def _looked_up(cache: Tensor, positions: Tensor) -> Tables:
    cos, sin = cache.index_select(0, positions).chunk(2, dim=-1)
    return cos.contiguous(), sin.contiguous()
