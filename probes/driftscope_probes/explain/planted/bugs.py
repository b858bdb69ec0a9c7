"""Bugs planted in a live pair, each undone when its block ends.

In: the engine's and the trainer's side, a layer. Out: a pair in which one op is at fault.

A bug changes what really runs: weights are packed anew as vLLM packs them, numbers are those that
its kernels read, and what has no such number is changed in the layer's own call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from driftscope_kernels.compare_ops.reasons import Reason
from driftscope_probes.explain.sides.hf_side import HfSide
from driftscope_probes.explain.sides.overrides import Overrides
from driftscope_probes.explain.sides.packed_weights import linear_weight
from driftscope_probes.explain.sides.vllm_side import VllmSide

OTHER_BASE: Final = 500_000.0
LINEAR_SCALING: Final = 4.0
OTHER_EPSILON: Final = 0.05
DROPOUT: Final = 0.1
OTHER_SCALE: Final = 1.3


@dataclass(frozen=True, slots=True)
class Live:
    engine: VllmSide
    trainer: HfSide

    def engine_layer(self, layer: int) -> Any:
        return self.engine.model.model.layers[layer]

    def trainer_layer(self, layer: int) -> Any:
        decoder: Any = self.trainer.loaded.decoder
        return decoder.layers[layer]


Plant = Callable[[Overrides, Live, int], None]


@dataclass(frozen=True, slots=True)
class Bug:
    name: str
    sites: tuple[str, ...]  # any of which is right
    reasons: tuple[Reason, ...]  # likewise
    plant: Plant
    families: frozenset[str] | None = None  # None: all
    every_layer: bool = False  # vLLM's layers share the module, so the first layer shows it
    dtypes: frozenset[str] = frozenset({"bf16", "fp16", "fp32"})

    @contextmanager
    def planted(self, live: Live, layer: int) -> Iterator[None]:
        with Overrides() as overrides:
            overrides.callback(live.engine.weights_changed)
            self.plant(overrides, live, layer)
            live.engine.weights_changed()
            yield


def _set(overrides: Overrides, owner: Any, name: str, value: Any) -> None:
    before = getattr(owner, name)
    overrides.callback(setattr, owner, name, before)
    setattr(owner, name, value)


def _write(overrides: Overrides, tensor: Tensor, value: Tensor) -> None:
    """Into the tensor itself, under which others know it."""
    before = tensor.detach().clone()

    def write(new: Tensor) -> None:
        with torch.no_grad():
            tensor.copy_(new)

    overrides.callback(write, before)
    write(value)


def _packed(
    overrides: Overrides, layer: Any, width: int, change: Callable[[Tensor], Tensor]
) -> None:
    """Another weight in a vLLM layer, packed as vLLM packs it."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    weight = change(linear_weight(layer, width).clone())
    for name in ("weight", "cpu_linear"):
        overrides.callback(setattr, layer, name, getattr(layer, name))
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    dispatch_cpu_unquantized_gemm(layer, remove_weight=False)


def _other_weight(overrides: Overrides, live: Live, layer: int) -> None:
    target = live.engine_layer(layer).self_attn.o_proj
    _packed(overrides, target, target.input_size, lambda weight: weight.roll(1, 0))


def _permuted_shard(overrides: Overrides, live: Live, layer: int) -> None:
    target = live.engine_layer(layer).mlp.gate_up_proj

    def change(weight: Tensor) -> Tensor:
        half = len(weight) // 2
        return torch.cat([weight[:half], weight[half:].roll(half // 2, 0)])

    _packed(overrides, target, target.input_size, change)


def _adapter_left_out(overrides: Overrides, live: Live, layer: int) -> None:
    weight = live.trainer_layer(layer).self_attn.q_proj.weight
    draw = torch.Generator().manual_seed(layer)
    down, up = (torch.randn(n, 4, generator=draw) for n in weight.shape)
    _write(overrides, weight, weight + (0.02 * down @ up.t()).to(weight.dtype))


def _bias_dropped(overrides: Overrides, live: Live, layer: int) -> None:
    bias = live.trainer_layer(layer).self_attn.k_proj.bias
    _write(overrides, bias, torch.zeros_like(bias))


def _angles(overrides: Overrides, live: Live, layer: int, base: float, scaling: float) -> None:
    """The table from which vLLM turns queries and keys, of all layers."""
    table = live.engine_layer(layer).self_attn.rotary_emb.cos_sin_cache
    positions, half = torch.arange(len(table)).float() / scaling, table.shape[1] // 2
    angles = positions[:, None] * base ** -(torch.arange(half).float() / half)
    _write(overrides, table, torch.cat([angles.cos(), angles.sin()], -1).to(table.dtype))


def _other_base(overrides: Overrides, live: Live, layer: int) -> None:
    _angles(overrides, live, layer, OTHER_BASE, 1.0)


def _scaled_positions(overrides: Overrides, live: Live, layer: int) -> None:
    base = live.engine_layer(layer).self_attn.rotary_emb.base
    _angles(overrides, live, layer, base, LINEAR_SCALING)


def _shifted_positions(overrides: Overrides, live: Live, layer: int) -> None:
    def shifted(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, position_ids: Tensor, **kwargs: Any) -> Any:
            return own(*args, position_ids=position_ids + 1, **kwargs)

        return forward

    overrides.wrap(live.trainer.loaded.decoder, "forward", shifted)


def _other_epsilon(overrides: Overrides, live: Live, layer: int) -> None:
    norm = live.engine_layer(layer).post_attention_layernorm
    _set(overrides, norm, "variance_epsilon", OTHER_EPSILON)


def _masked(overrides: Overrides, live: Live, layer: int, of: Callable[[int], Tensor]) -> None:
    """A mask of booleans [length, length] instead of what the trainer's layer is given."""

    def forward_with(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            mask = of(hidden_states.shape[1])[None, None]
            return own(hidden_states, *args, **{**kwargs, "attention_mask": mask})

        return forward

    overrides.wrap(live.trainer_layer(layer).self_attn, "forward", forward_with)


def _first_token_hidden(overrides: Overrides, live: Live, layer: int) -> None:
    window = getattr(live.trainer.loaded.model.config, "sliding_window", None)

    def mask(length: int) -> Tensor:
        seen = torch.ones(length, length, dtype=torch.bool).tril()
        if window is not None:
            seen = seen.triu(1 - window)
        seen[1:, 0] = False
        return seen

    _masked(overrides, live, layer, mask)


def _not_causal(overrides: Overrides, live: Live, layer: int) -> None:
    _masked(overrides, live, layer, lambda n: torch.ones(n, n, dtype=torch.bool))


def _short_window(overrides: Overrides, live: Live, layer: int) -> None:
    window = live.trainer.loaded.model.config.sliding_window - 1
    _masked(
        overrides,
        live,
        layer,
        lambda n: torch.ones(n, n, dtype=torch.bool).tril().triu(1 - window),
    )


def _dropout(overrides: Overrides, live: Live, layer: int) -> None:
    def dropped(own: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: functional.dropout(own(*args, **kwargs), DROPOUT)

    overrides.wrap(live.trainer_layer(layer).mlp.down_proj, "forward", dropped)


def _other_scale(overrides: Overrides, live: Live, layer: int) -> None:
    implementation = live.engine_layer(layer).self_attn.attn.impl
    _set(overrides, implementation, "scale", implementation.scale * OTHER_SCALE)


def _other_cache_layout(overrides: Overrides, live: Live, layer: int) -> None:
    """Keys and values of the heads stand in the cache in the other order."""
    attention = live.engine_layer(layer).self_attn
    size = attention.head_dim

    def reversed_heads(x: Tensor) -> Tensor:
        return x.view(len(x), -1, size).flip(1).reshape(x.shape)

    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Any:
            return own(query, reversed_heads(key), reversed_heads(value), **kwargs)

        return forward

    overrides.wrap(attention.attn, "forward", around)


def _other_activation(overrides: Overrides, live: Live, layer: int) -> None:
    mlp = live.trainer_layer(layer).mlp
    _set(overrides, mlp, "act_fn", nn.GELU())


def _no_embedding_scale(overrides: Overrides, live: Live, layer: int) -> None:
    scale = live.engine.model.model.normalizer
    _write(overrides, scale, torch.ones_like(scale))


def _permuted_experts(overrides: Overrides, live: Live, layer: int) -> None:
    experts = live.trainer_layer(layer).mlp.experts
    _write(overrides, experts.down_proj, experts.down_proj.roll(1, 0))


def _not_renormalised(overrides: Overrides, live: Live, layer: int) -> None:
    _set(overrides, live.engine_layer(layer).mlp.experts.router, "renormalize", False)


def _rounded_router(overrides: Overrides, live: Live, layer: int) -> None:
    def rounded(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            logits, *rest = own(*args, **kwargs)
            return logits.bfloat16().to(logits.dtype), *rest

        return forward

    overrides.wrap(live.engine_layer(layer).mlp.gate, "forward", rounded)


def _stale_head(overrides: Overrides, live: Live, layer: int) -> None:
    """The trainer has learnt, vLLM loads its weights, and its packed head is the old one."""
    embedding = live.trainer.loaded.model.get_input_embeddings().weight
    before, changed = embedding.detach().clone(), (embedding * 1.5).to(embedding.dtype)
    _write(overrides, embedding, changed)
    model = live.engine.model

    def load(weight: Tensor) -> None:
        model.load_weights([("model.embed_tokens.weight", weight.detach())])

    overrides.callback(load, before)
    load(changed)


DENSE: Final = frozenset({"llama", "qwen2", "qwen3", "mistral", "gemma"})
BUGS: Final = (
    Bug("weight", ("o_proj",), ("weight",), _other_weight),
    Bug("permuted_shard", ("up_proj",), ("weight",), _permuted_shard, DENSE),
    Bug("adapter_left_out", ("q_proj",), ("weight",), _adapter_left_out),
    Bug("bias_dropped", ("k_proj",), ("weight",), _bias_dropped, frozenset({"qwen2"})),
    Bug("rotary_base", ("rotary",), ("position",), _other_base, every_layer=True),
    Bug("rotary_scaling", ("rotary",), ("position",), _scaled_positions, every_layer=True),
    Bug("positions", ("rotary",), ("position",), _shifted_positions, every_layer=True),
    Bug("epsilon", ("mlp_norm",), ("formula",), _other_epsilon),
    Bug("first_token_hidden", ("attention",), ("mask",), _first_token_hidden),
    Bug("not_causal", ("attention",), ("mask",), _not_causal),
    Bug("short_window", ("attention",), ("mask",), _short_window, frozenset({"mistral"})),
    Bug("dropout", ("down_proj",), ("randomness",), _dropout, DENSE),
    Bug("attention_scale", ("attention",), ("formula",), _other_scale),
    Bug("cache_layout", ("attention",), ("cache",), _other_cache_layout),
    Bug("activation", ("activation",), ("formula",), _other_activation, DENSE - {"gemma"}),
    Bug(
        "embedding_scale", ("embedding",), ("formula",), _no_embedding_scale,
        frozenset({"gemma"}), every_layer=True,
    ),
    Bug("permuted_experts", ("experts",), ("weight",), _permuted_experts, frozenset({"moe"})),
    Bug("not_renormalised", ("top_k",), ("formula",), _not_renormalised, frozenset({"moe"})),
    Bug(
        "rounded_router", ("router",), ("dtype", "rounding_point"), _rounded_router,
        frozenset({"moe"}), dtypes=frozenset({"fp32"}),  # a rounding to 16 bits is none in them
    ),
    Bug(
        "stale_head", ("lm_head",), ("weight",), _stale_head, frozenset({"qwen2", "qwen3"}),
        every_layer=True, dtypes=frozenset({"bf16", "fp32"}),  # fp16's head is not packed here
    ),
)  # fmt: skip
