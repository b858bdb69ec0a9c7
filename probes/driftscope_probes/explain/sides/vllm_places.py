"""Where a vLLM model's tensors between two ops are met: its layers' own calls, one by one.

In: the live model, a tap. Out: a block in which every layer hands its output to the tap.

vLLM merges q, k and v, gate and up into one product each; the tap sees them apart. Its norms add
the update to the residual stream; both results are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from driftscope_probes.explain.sides.overrides import Overrides
from driftscope_probes.explain.sites import Place

#: At a place, its tensor [rows, …] goes in and what goes on comes out.
Meet = Callable[[Place, Tensor], Tensor]
#: Of a decoder layer, by what vLLM calls them.
ATTENTION, MLP = "self_attn", "mlp"
#: Norms by the names that Llama's kind of layer gives them, and Gemma 2's.
NORMS = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
FOUR_NORMS = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "attention_output_norm",
    "pre_feedforward_layernorm": "mlp_norm",
    "post_feedforward_layernorm": "mlp_output_norm",
}
STREAMS = {"attention_norm": "residual_in", "mlp_norm": "residual_mid"}


def norms_of(layer: nn.Module) -> dict[str, str]:
    """Names of the layer's norms and of the places behind them; transformers names them alike."""
    return FOUR_NORMS if hasattr(layer, "pre_feedforward_layernorm") else NORMS


@contextmanager
def met(model: nn.Module, meet: Meet) -> Iterator[None]:
    """`model`: LlamaForCausalLM and its like. `head` is met by the side, which knows its rows."""
    decoder: Any = model.model
    with Overrides() as overrides:
        layers = list(decoder.layers)
        for index, layer in enumerate(layers):
            _layer(overrides, index, layer, meet)
        _norm(overrides, decoder.norm, None, "final_norm", "residual_out", meet)
        yield


def uncovered(model: nn.Module) -> list[str]:
    """Names of the layers' parts whose output no place stands for."""
    decoder: Any = model.model
    known = {*FOUR_NORMS, *NORMS, ATTENTION, MLP}
    parts = {f"layers.*.{name}" for layer in decoder.layers for name, _ in layer.named_children()}
    found = sorted(part for part in parts if part.rpartition(".")[2] not in known)
    for layer in decoder.layers:
        mlp = getattr(layer, MLP, None)
        if getattr(mlp, "shared_expert", None) is not None:
            found.append("layers.*.mlp.shared_expert")
            break
    return found


def _layer(overrides: Overrides, index: int, layer: Any, meet: Meet) -> None:
    if index == 0:
        # The layer's input: the embedding, scaled where the model scales it.
        overrides.wrap(layer, "forward", lambda own: _entered(own, meet))
    for name, place in norms_of(layer).items():
        _norm(overrides, getattr(layer, name), index, place, STREAMS.get(place), meet)
    _attention(overrides, index, layer.self_attn, meet)
    _mlp(overrides, index, layer.mlp, meet)


def _entered(own: Callable[..., Any], meet: Meet) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        place = Place(None, "embedding")
        if "hidden_states" in kwargs:
            return own(*args, **{**kwargs, "hidden_states": meet(place, kwargs["hidden_states"])})
        positions, hidden, *rest = args
        return own(positions, meet(place, hidden), *rest, **kwargs)

    return forward


def _norm(
    overrides: Overrides, norm: Any, layer: int | None, name: str, stream: str | None, meet: Meet
) -> None:
    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(x: Tensor, residual: Tensor | None = None) -> Any:
            if residual is None:
                return _flat(meet, Place(layer, name), own(x))
            assert stream is not None, f"{name} adds to a stream that has no name"
            normed, total = own(x, residual)
            total = meet(Place(layer, stream), total)
            return meet(Place(layer, name), normed), total

        return forward

    overrides.wrap(norm, "forward", around)


def _attention(overrides: Overrides, layer: int, attention: Any, meet: Meet) -> None:
    sizes = (attention.q_size, attention.kv_size, attention.kv_size)
    names = ("q_proj", "k_proj", "v_proj")
    _split(overrides, attention.qkv_proj, layer, names, sizes, meet)
    for letter in "qk":
        norm = getattr(attention, f"{letter}_norm", None)
        if norm is not None:
            _norm(overrides, norm, layer, f"{letter}_norm", None, meet)

    def turned(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(positions: Tensor, query: Tensor, key: Tensor) -> Any:
            q, k = own(positions, query, key)
            return meet(Place(layer, "q_rotary"), q), meet(Place(layer, "k_rotary"), k)

        return forward

    _in_layer(overrides, attention, attention.rotary_emb, turned)
    overrides.wrap(attention.attn, "forward", _one(Place(layer, "attention"), meet))
    overrides.wrap(attention.o_proj, "forward", _first(Place(layer, "o_proj"), meet))


def _in_layer(overrides: Overrides, caller: Any, shared: Any, around: Callable[[Any], Any]) -> None:
    """Wraps a module while `caller` runs: vLLM's layers share rotary and activation modules."""

    def calling(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            with Overrides() as inner:
                inner.wrap(shared, "forward", around)
                return own(*args, **kwargs)

        return forward

    overrides.wrap(caller, "forward", calling)


def _mlp(overrides: Overrides, layer: int, mlp: Any, meet: Meet) -> None:
    if hasattr(mlp, "experts"):
        overrides.wrap(mlp.gate, "forward", _first(Place(layer, "router"), meet))
        overrides.wrap(mlp.experts.router, "select_experts", _chosen(layer, meet))
        overrides.wrap(mlp.experts, "forward", _one(Place(layer, "experts"), meet))
        return
    width = mlp.gate_up_proj.output_size // 2
    names, sizes = ("gate_proj", "up_proj"), (width, width)
    _split(overrides, mlp.gate_up_proj, layer, names, sizes, meet)
    _in_layer(overrides, mlp, mlp.act_fn, _one(Place(layer, "activation"), meet))
    overrides.wrap(mlp.down_proj, "forward", _first(Place(layer, "down_proj"), meet))


def _split(
    overrides: Overrides,
    module: Any,
    layer: int,
    names: tuple[str, ...],
    sizes: tuple[int, ...],
    meet: Meet,
) -> None:
    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            merged, *rest = own(*args, **kwargs)
            parts = merged.split(sizes, dim=-1)
            seen = [meet(Place(layer, n), part) for n, part in zip(names, parts, strict=True)]
            return torch.cat(seen, dim=-1), *rest

        return forward

    overrides.wrap(module, "forward", around)


def _chosen(layer: int, meet: Meet) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        def select_experts(*args: Any, **kwargs: Any) -> Any:
            weights, experts = own(*args, **kwargs)
            return (
                meet(Place(layer, "top_k_weights"), weights),
                meet(Place(layer, "top_k_experts"), experts),
            )

        return select_experts

    return around


def _one(place: Place, meet: Meet) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: meet(place, own(*args, **kwargs))

    return around


def _first(place: Place, meet: Meet) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Of what is returned, the first is the output; the rest is a bias that is added elsewhere."""

    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            output, *rest = own(*args, **kwargs)
            return meet(place, output), *rest

        return forward

    return around


def _flat(meet: Meet, place: Place, value: Tensor) -> Tensor:
    """Norms of heads give [rows, heads, head_dim]; places hold [rows, features]."""
    return meet(place, value.flatten(1)).view(value.shape)
