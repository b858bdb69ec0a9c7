"""The family of each kind of op, by the kinds that `explain` cuts a decoder into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from driftscope_kernels.compare_ops.activation import ACTIVATION
from driftscope_kernels.compare_ops.attention import ATTENTION
from driftscope_kernels.compare_ops.embedding import EMBEDDING
from driftscope_kernels.compare_ops.linear import LINEAR, ROUTER
from driftscope_kernels.compare_ops.logprob import LOGPROB
from driftscope_kernels.compare_ops.mixture import EXPERTS, TOP_K
from driftscope_kernels.compare_ops.norm import NORM, RESIDUAL_NORM
from driftscope_kernels.compare_ops.rotary import ROTARY
from driftscope_kernels.compare_ops.variant import AnyFamily

FAMILIES: Final[Mapping[str, AnyFamily]] = {
    "embedding": EMBEDDING,
    "norm": NORM,
    "residual_norm": RESIDUAL_NORM,
    "linear": LINEAR,
    "rotary": ROTARY,
    "attention": ATTENTION,
    "activation": ACTIVATION,
    "router": ROUTER,
    "top_k": TOP_K,
    "experts": EXPERTS,
    "logprob": LOGPROB,
}
