"""Every unquantised linear layer and lm_head of vLLM on CPU, through our matrix product.

In: a layer whose weight [N, K] has been loaded. Out: `layer.cpu_linear(x, weight, bias)`, which
vLLM calls with x [..., K]; the weight is packed once, and again after vLLM reloads it. Where the
packed form is the only one that is kept, `plain` gives the weight back to who is to write into it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import operators
from driftscope_kernels.cpu.linear import linear
from driftscope_kernels.registry import DTYPES
from driftscope_kernels.vllm_plugin import patches

Dispatch = Callable[[Any, bool], None]

#: Elements of a kept weight that are compared at every call. A training step changes nearly all of
#: them; what loads weights through vLLM is told to `refresh_kept` whatever it changes.
SAMPLED_ELEMENTS = 1024


def route() -> None:
    """vLLM looks the name up in its module at every call."""
    from vllm.model_executor.layers import utils

    original: Dispatch = utils.dispatch_cpu_unquantized_gemm

    def dispatch(layer: Any, remove_weight: bool) -> None:
        weight = layer.weight
        if weight.is_meta or weight.ndim != 2 or weight.dtype not in DTYPES:
            original(layer, remove_weight)
        elif remove_weight and operators() is not None:
            layer.cpu_linear = PackedOnlyLinear(weight.detach())
            release(weight)
        else:
            layer.cpu_linear = KeptLinear()

    patches.replace(utils, "dispatch_cpu_unquantized_gemm", dispatch)


def release(weight: Tensor) -> None:
    """As vLLM's own does, the packed form is the only one that is kept; the parameter itself stays,

    with the loader that knows where q, k and v go.
    """
    weight.data = weight.data.new_empty(0)


#: Columns (output features) in one packed panel, and elements of k that lie side by side in it:
#: csrc/gemm/gemm.h, pack_panel.
PANEL = 32
PAIRED = {torch.bfloat16: 2, torch.float16: 1, torch.float32: 1}


class PackedLinear:
    """A product with a weight in packed form."""

    __slots__ = ("_multiply", "_panels", "_shape")

    def __init__(self, weight: Tensor) -> None:
        built = operators()
        assert built is not None
        self._multiply = built.linear.default
        self._pack(weight)

    def _pack(self, weight: Tensor) -> None:
        built = operators()
        assert built is not None
        self._panels: Tensor = built.pack_weight(weight, "")
        # The operator reads only the shape of a weight that it has in packed form.
        self._shape = weight.new_zeros(()).expand(weight.shape)

    @property
    def shape(self) -> torch.Size:
        """Of the weight: [N, K]."""
        return self._shape.shape

    def panels(self) -> Tensor:
        """What is multiplied with: [N / PANEL, K / paired, PANEL, paired], filled up with zeros."""
        dtype = self._shape.dtype
        rows = -(-self._shape.shape[0] // PANEL)
        return self._panels.view(dtype).view(rows, -1, PANEL, PAIRED[dtype])

    def plain(self) -> Tensor:
        """The weight [N, K], bit for bit as it was packed."""
        n, k = self._shape.shape
        panels = self.panels()
        rows = panels.transpose(1, 2).reshape(panels.shape[0] * PANEL, -1)
        return rows[:n, :k].contiguous()

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        n, k = self._shape.shape
        assert x.shape[-1] == k and x.dtype == self._shape.dtype, (x.shape, x.dtype, n, k)
        rows = x if x.dim() == 2 else x.reshape(-1, k)
        y: Tensor = self._multiply(rows, self._shape, self._panels, bias, None, x.dtype, "")
        return y if x.dim() == 2 else y.view(*x.shape[:-1], n)


class PackedOnlyLinear(PackedLinear):
    """The same where nothing else is kept, but for those who write into the weight."""

    __slots__ = ()

    def give_back(self, weight: Tensor) -> None:
        weight.data = self.plain()

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if weight.numel():
            self._pack(weight.detach())
            release(weight)
        return super().__call__(x, weight, bias)


class KeptLinear:
    """A product with a weight that others read too (tied embeddings), packed anew when it changes.

    vLLM's own packs once: after a reload of tied embeddings its lm_head keeps using the old ones.
    """

    def __init__(self) -> None:
        self._packed: PackedLinear | None = None
        self._seen: tuple[int, int] = (0, 0)
        self._sample: Tensor | None = None
        follow_weights(self)

    def refresh(self) -> None:
        self._packed = None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if operators() is None:
            return linear(x, weight, bias)
        if self._packed is None or self._changed(weight):
            self._packed = PackedLinear(weight.detach())
            self._seen, self._sample = _identity(weight), _sampled(weight).clone()
        return self._packed(x, weight, bias)

    def held(self, weight: Tensor) -> PackedLinear | None:
        """What the next product multiplies with; None: the weight itself, packed anew then."""
        return None if self._packed is None or self._changed(weight) else self._packed

    def _changed(self, weight: Tensor) -> bool:
        assert self._sample is not None
        return self._seen != _identity(weight) or not torch.equal(self._sample, _sampled(weight))


class Refreshed(Protocol):
    def refresh(self) -> None: ...


_KEPT: WeakSet[Refreshed] = WeakSet()


def follow_weights(kept: Refreshed) -> None:
    """From now on, as long as it lives, `kept` is told of every load of weights."""
    _KEPT.add(kept)


def refresh_kept() -> None:
    """To be called after weights have changed: what was packed of them is dropped."""
    for kept in _KEPT:
        kept.refresh()


def _identity(weight: Tensor) -> tuple[int, int]:
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def _sampled(weight: Tensor) -> Tensor:
    flat = weight.detach().view(-1)
    return flat[:: max(1, flat.numel() // SAMPLED_ELEMENTS)].view(BITS[weight.element_size()])


#: Compared as bits: not-a-number is equal to itself then.
BITS: dict[int, Any] = {2: torch.int16, 4: torch.int32}


def route_reloads() -> None:
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
    from vllm.model_executor.model_loader.reload import layerwise
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    # In this order: reload from a path or an iterator; weight transfer; model.load_weights().
    for owner, name in (
        (GPUModelRunner, "reload_weights"),
        (layerwise, "finalize_layerwise_processing"),
        (VocabParallelEmbedding, "weight_loader"),
    ):
        patches.replace(owner, name, _then_refresh(getattr(owner, name)))


def _then_refresh(original: Callable[..., Any]) -> Callable[..., Any]:
    # With the signature of the original: a reload binds a loader's arguments by name.
    @wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            refresh_kept()

    return call
