"""The weights that a running engine multiplies with, where it keeps them in packed form only.

In: a layer of vLLM after loading. Out: its weight as a plain tensor, element by element equal.

vLLM on CPU hands linear weights to oneDNN and drops the plain ones. A row of the identity matrix
through the layer is one column of its weight: one product with 1 and sums with zeros, all exact.
So this reads what the engine multiplies with, also where a reload left it behind. Only the sign of
a zero is lost.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

#: Rows of the identity that go through a layer at once: enough to use the kernel well, and for the
#: widest layers (a head of 152,064 tokens) 78 MB of bfloat16.
CHUNK_ROWS: Final = 256
#: Elements of one expert whose places are told apart by 16 bits at a time.
_LOW_BITS: Final = 16


def unquantised(layer: Any) -> bool:
    """Whether the layer is a plain product with a weight."""
    kinds = {type(getattr(layer, "quant_method", None)).__name__}
    return bool(kinds & {"UnquantizedLinearMethod", "UnquantizedEmbeddingMethod"})


def dtype_of(layer: Any) -> torch.dtype:
    dtype: torch.dtype = layer.weight.dtype  # an emptied weight keeps its dtype
    return dtype


def product(layer: Any, x: Tensor) -> Tensor:
    """x [rows, in] times the layer's weight, without its bias: [rows, out]."""
    with torch.inference_mode():
        y: Tensor = layer.quant_method.apply(layer, x, None)
    return y


def linear_weight(layer: Any, width: int) -> Tensor:
    """[out, in] of a layer that reads `width` features, in the layer's dtype."""
    device, dtype = layer.weight.device, dtype_of(layer)
    weight: Tensor | None = None
    for start in range(0, width, CHUNK_ROWS):
        end = min(start + CHUNK_ROWS, width)
        rows = torch.zeros((end - start, width), dtype=dtype, device=device)
        rows[torch.arange(end - start), torch.arange(start, end)] = 1.0
        columns = product(layer, rows)
        if weight is None:
            weight = torch.empty((columns.shape[1], width), dtype=dtype, device=device)
        weight[:, start:end] = columns.t()
    assert weight is not None, width
    return weight


def expert_weight(packed: Tensor, isa: str) -> Tensor | None:
    """[experts, out, in] from the form that vLLM's CPU kernel for experts reads.

    Packing moves elements and changes none. Where each goes is read off by packing the numbers of
    the places. None where packing the result again does not give the same bits.
    """
    from vllm._custom_ops import cpu_prepack_moe_weight

    with torch.inference_mode():
        places = _places(packed, isa)
        # Packing takes each place once, or it is no permutation.
        if not torch.equal(places.sort().values, torch.arange(places.numel())):
            return None
        flat = packed.reshape(packed.shape[0], -1)
        plain = torch.empty_like(flat)
        plain[:, places] = flat
        plain = plain.reshape(packed.shape)
        again = cpu_prepack_moe_weight(plain, isa)
    bits = {2: torch.int16, 4: torch.int32}[packed.element_size()]
    return plain if torch.equal(again.view(bits), packed.view(bits)) else None


def _places(packed: Tensor, isa: str) -> Tensor:
    """int64 [out · in]: where in the plain weight each element of a packed expert came from."""
    from vllm._custom_ops import cpu_prepack_moe_weight

    numbers = torch.arange(packed[0].numel())
    if packed.element_size() == 4:
        carried = numbers.to(torch.int32).view(torch.float32).reshape(1, *packed.shape[1:])
        packed_numbers: Tensor = cpu_prepack_moe_weight(carried, isa)
        return packed_numbers.view(torch.int32).reshape(-1).long()
    places = torch.zeros_like(numbers)
    for shift in (0, _LOW_BITS):
        digits = (numbers >> shift) & ((1 << _LOW_BITS) - 1)
        # As bits of the weight's own dtype: packing copies them.
        carried = digits.to(torch.int32).to(torch.int16).view(packed.dtype)
        moved = cpu_prepack_moe_weight(carried.reshape(1, *packed.shape[1:]), isa)
        places |= (moved.view(torch.int16).reshape(-1).long() & 0xFFFF) << shift
    return places
