"""Where a transformers model's tensors between two ops are met: hooks on its modules.

In: the live decoder, a tap. Out: a block in which every tensor between two ops goes through it.

What its code computes between modules (the residual sum, the activation times up, rotary) is met as
the input of the module behind it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from driftscope_probes.explain.sides.overrides import Overrides
from driftscope_probes.explain.sides.vllm_places import STREAMS, Meet, norms_of
from driftscope_probes.explain.sites import Place

ROTARY = "apply_rotary_pos_emb"


@contextmanager
def met(decoder: Any, meet: Meet) -> Iterator[None]:
    """`decoder`: LlamaModel and its like, run on one sequence [1, length] at a time."""
    with Overrides() as hooks:
        for index, layer in enumerate(decoder.layers):
            _layer(hooks, index, layer, meet)
        _added(hooks, decoder.norm, Place(None, "residual_out"), meet)
        _after(hooks, decoder.norm, Place(None, "final_norm"), meet)
        _rotary(hooks, decoder, meet)
        yield


def uncovered(decoder: Any) -> list[str]:
    """Names of the layers' parts whose output no place stands for."""
    known = {"self_attn", "mlp", *norms_of(decoder.layers[0])}
    parts = {name for layer in decoder.layers for name, _ in layer.named_children()}
    found = [f"layers.*.{name}" for name in sorted(parts - known)]
    if any(hasattr(layer.mlp, "shared_expert") for layer in decoder.layers):
        found.append("layers.*.mlp.shared_expert")
    return found


def _layer(hooks: Overrides, index: int, layer: Any, meet: Meet) -> None:
    if index == 0:
        _before(hooks, layer, Place(None, "embedding"), meet)
    for name, place in norms_of(layer).items():
        norm, stream = getattr(layer, name), STREAMS.get(place)
        # The first norm of the model is given the embedding, to which nothing was added.
        if stream is not None and (index, stream) != (0, "residual_in"):
            _added(hooks, norm, Place(index, stream), meet)
        _after(hooks, norm, Place(index, place), meet)
    attention = layer.self_attn
    for name in ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "o_proj"):
        module = getattr(attention, name, None)
        if isinstance(module, nn.Module):
            _after(hooks, module, Place(index, name), meet)
    _before(hooks, attention.o_proj, Place(index, "attention"), meet)
    _mlp(hooks, index, layer.mlp, meet)


def _mlp(hooks: Overrides, index: int, mlp: Any, meet: Meet) -> None:
    if hasattr(mlp, "experts"):
        _router(hooks, index, mlp.gate, meet)
        _after(hooks, mlp.experts, Place(index, "experts"), meet)
        return
    for name in ("gate_proj", "up_proj", "down_proj"):
        _after(hooks, getattr(mlp, name), Place(index, name), meet)
    _before(hooks, mlp.down_proj, Place(index, "activation"), meet)


def _after(hooks: Overrides, module: nn.Module, place: Place, meet: Meet) -> None:
    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return _as_rows(meet, place, output)

    hooks.callback(module.register_forward_hook(hook).remove)


def _before(hooks: Overrides, module: nn.Module, place: Place, meet: Meet) -> None:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not args:
            first = next(iter(kwargs))
            return (), {**kwargs, first: _as_rows(meet, place, kwargs[first])}
        return (_as_rows(meet, place, args[0]), *args[1:]), kwargs

    hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)


def _added(hooks: Overrides, norm: nn.Module, place: Place, meet: Meet) -> None:
    """The sum of stream and update, which the layer keeps and the norm reads: one op with it.

    So the norm reads this side's own sum. What is to take its place does so afterwards, in the
    tensor itself, which is the layer's residual stream.
    """

    def hook(_: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        total = args[0]
        new = _as_rows(meet, place, total)
        if new is not total:
            total.copy_(new)
        return output

    hooks.callback(norm.register_forward_hook(hook).remove)


def _as_rows(meet: Meet, place: Place, value: Tensor) -> Tensor:
    """[1, length, …] and [length, …] alike as [length, features]."""
    rows = value[0] if value.ndim > 2 else value
    flat = rows.flatten(1)
    new = meet(place, flat)
    return value if new is flat else new.reshape(value.shape)


def _rotary(hooks: Overrides, decoder: Any, meet: Meet) -> None:
    """A function of the model's module: the layer in whose attention it is called is known."""
    current = [0]
    modules = set()
    for index, layer in enumerate(decoder.layers):
        modules.add(sys.modules[type(layer.self_attn).__module__])

        def enter(*_: Any, index: int = index) -> None:
            current[0] = index

        hooks.callback(layer.self_attn.register_forward_pre_hook(enter).remove)

    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        def apply_rotary_pos_emb(*args: Any, **kwargs: Any) -> Any:
            turned = own(*args, **kwargs)
            return tuple(
                _heads(meet, Place(current[0], f"{letter}_rotary"), heads)
                for letter, heads in zip("qk", turned, strict=True)
            )

        return apply_rotary_pos_emb

    for module in modules:
        hooks.wrap(module, ROTARY, around)


def _heads(meet: Meet, place: Place, value: Tensor) -> Tensor:
    """[1, heads, length, head_dim] as [length, heads · head_dim]."""
    flat = value[0].transpose(0, 1).flatten(1)
    new = meet(place, flat)
    if new is flat:
        return value
    heads, length, width = value.shape[1:]
    return new.view(length, heads, width).transpose(0, 1)[None]


class _RouterLogits(TorchFunctionMode):
    """The router's product is met inside its own forward, before it chooses."""

    def __init__(self, place: Place, meet: Meet) -> None:
        super().__init__()
        self._place, self._meet = place, meet

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return self._meet(self._place, result) if func is nn.functional.linear else result


def _router(hooks: Overrides, index: int, gate: Any, meet: Meet) -> None:
    """transformers' routers give logits, weights and numbers of the chosen experts."""

    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            with _RouterLogits(Place(index, "router"), meet):
                logits, weights, experts = own(*args, **kwargs)
            weights = meet(Place(index, "top_k_weights"), weights)
            return logits, weights, meet(Place(index, "top_k_experts"), experts)

        return forward

    hooks.wrap(gate, "forward", around)
