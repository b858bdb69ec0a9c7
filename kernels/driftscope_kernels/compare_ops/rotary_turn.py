"""The turn of rotary position embedding: tables of cosines and sines, and where products round.

In: heads, positions, inverse frequencies. Out: heads turned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import RotaryParameters
from driftscope_kernels.reference.arithmetic import fma

#: a·c + b·s
Product = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Turn:
    """o₁ = x₁·cos − x₂·sin, o₂ = x₂·cos + x₁·sin, in the arithmetic of `product`."""

    parameters: RotaryParameters
    product: Product

    def of(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [tokens, heads · head_dim], cos and sin [tokens, width / 2]."""
        out = x.reshape(len(x), -1, self.parameters.head_dim).clone()
        x1, x2 = pairs(out, self.parameters)
        cos, sin = cos[:, None], sin[:, None]
        first, second = self.product(x1, cos, -x2, sin), self.product(x2, cos, x1, sin)
        for place, value in zip(places(self.parameters), (first, second), strict=True):
            out[..., place] = value
        return out.reshape(x.shape)


def places(parameters: RotaryParameters) -> tuple[slice, slice]:
    half = len(parameters.inverse_frequencies)
    if parameters.interleaved:
        return slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    return slice(0, half), slice(half, 2 * half)


def pairs(heads: Tensor, parameters: RotaryParameters) -> tuple[Tensor, Tensor]:
    first, second = places(parameters)
    return heads[..., first].clone(), heads[..., second].clone()


def is_turned(parameters: RotaryParameters, like: Tensor) -> Tensor:
    width = 2 * len(parameters.inverse_frequencies)
    return (torch.arange(like.shape[-1]) % parameters.head_dim < width).expand(like.shape)


def tables_of(
    positions: Tensor, parameters: RotaryParameters, angles: str
) -> tuple[Tensor, Tensor]:
    """float32 [tokens, width / 2] each."""
    wide = torch.float64 if angles == "float64_angles" else torch.float32
    turns = positions[:, None].to(wide) * parameters.inverse_frequencies.to(wide)
    cos, sin = turns.cos() * parameters.scaling, turns.sin() * parameters.scaling
    return cos.float(), sin.float()


def turned_by(
    x: Tensor, cos: Tensor, sin: Tensor, parameters: RotaryParameters, arithmetic: str
) -> Tensor:
    """Tables that stay in float32 make products in the dtype float32 too, as torch promotes them;
    those are rounded back."""
    if arithmetic == "in_dtype":
        product: Product = lambda a, c, b, s: (a * c).to(x.dtype) + (b * s).to(x.dtype)  # noqa: E731
        return Turn(parameters, product).of(x, cos, sin)
    chosen: Product = {
        "float32": lambda a, c, b, s: a * c + b * s,
        "fused": lambda a, c, b, s: _fma(b, s, a * c),
        "fused_cosine": lambda a, c, b, s: _fma(a, c, b * s),
    }[arithmetic]
    return Turn(parameters, chosen).of(x.float(), cos.float(), sin.float()).to(x.dtype)


def _fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.from_numpy(fma(a.numpy(), b.numpy(), c.numpy()))
