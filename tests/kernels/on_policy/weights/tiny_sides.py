"""A trainer and an engine of a few hundred numbers, laid out as transformers and vLLM do it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from driftscope_kernels.vllm_plugin.linear import (
    KeptLinear,
    PackedLinear,
    PackedOnlyLinear,
    refresh_kept,
    release,
)
from driftscope_kernels.vllm_plugin.weights import give_back, linear_layers

VOCABULARY, PADDED, HIDDEN, KEYS, INNER, EXPERTS = 40, 64, 16, 8, 12, 3
MERGED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}


def linear(rows: int, width: int = HIDDEN, bias: bool = False) -> nn.Linear:
    return nn.Linear(width, rows, bias=bias)


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(EXPERTS, 2 * INNER, HIDDEN))
        self.down_proj = nn.Parameter(torch.randn(EXPERTS, HIDDEN, INNER))


class TinyTrainer(nn.Module):
    """lm_head is the embedding."""

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model: Any = nn.Module()
        self.model.embed_tokens = nn.Embedding(VOCABULARY, HIDDEN)
        self.model.self_attn = nn.ModuleDict(
            {
                "q_proj": linear(HIDDEN, bias=True),
                "k_proj": linear(KEYS, bias=True),
                "v_proj": linear(KEYS, bias=True),
                "o_proj": linear(HIDDEN),
            }
        )
        self.model.mlp = nn.ModuleDict(
            {"gate_proj": linear(INNER), "up_proj": linear(INNER), "experts": Experts()}
        )
        self.model.norm = nn.LayerNorm(HIDDEN, bias=False)
        self.to(dtype)

    def get_input_embeddings(self) -> Any:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> Any:
        return self.model.embed_tokens

    def update(self) -> None:
        """An optimiser step that moves every weight."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(1.0625)


class EngineLinear(nn.Module):
    """With a weight in packed form only, as the plugin leaves it."""

    def __init__(self, sizes: list[int], dtype: torch.dtype, bias: bool = False) -> None:
        super().__init__()
        self.output_sizes = sizes
        weight = torch.ones(sum(sizes), HIDDEN, dtype=dtype)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(weight.new_ones(sum(sizes)), requires_grad=False) if bias else None
        self.cpu_linear = PackedOnlyLinear(self.weight.detach())
        release(self.weight)


class EngineEmbedding(nn.Module):
    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight


class EngineExperts(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.w13_weight = nn.Parameter(torch.ones(EXPERTS, 2 * INNER, HIDDEN, dtype=dtype))
        self.w2_weight = nn.Parameter(torch.ones(EXPERTS, HIDDEN, INNER, dtype=dtype))


class TinyEngine(nn.Module):
    packed_modules_mapping = MERGED

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        embedding = nn.Parameter(torch.ones(PADDED, HIDDEN, dtype=dtype), requires_grad=False)
        self.model: Any = nn.Module()
        self.model.embed_tokens = EngineEmbedding(embedding)
        self.model.self_attn = nn.ModuleDict(
            {
                "qkv_proj": EngineLinear([HIDDEN, KEYS, KEYS], dtype, bias=True),
                "o_proj": EngineLinear([HIDDEN], dtype),
            }
        )
        self.model.mlp = nn.ModuleDict(
            {"gate_up_proj": EngineLinear([INNER, INNER], dtype), "experts": EngineExperts(dtype)}
        )
        self.model.norm = nn.LayerNorm(HIDDEN, bias=False, dtype=dtype)
        self.lm_head: Any = EngineEmbedding(embedding)
        head: Any = self.lm_head
        head.cpu_linear = KeptLinear()

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        give_back(linear_layers(self))
        with torch.no_grad():
            for name, tensor in weights:
                self._write(name, tensor.to(self.model.embed_tokens.weight.dtype))
        refresh_kept()

    def _write(self, name: str, tensor: Tensor) -> None:
        path, _, leaf = name.rpartition(".")
        above, _, last = path.rpartition(".")
        for merged, parts in MERGED.items():
            if last in parts:
                module: Any = self.get_submodule(f"{above}.{merged}")
                first = sum(module.output_sizes[: parts.index(last)])
                getattr(module, leaf)[first : first + len(tensor)] = tensor
                return
        if path.endswith("experts"):
            leaf = {"gate_up_proj": "w13_weight", "down_proj": "w2_weight"}[leaf]
        target = getattr(self.get_submodule(path), leaf)
        target[: len(tensor)] = tensor

    def compute(self) -> None:
        """Packs what was written, as a forward does."""
        x = self.model.embed_tokens.weight[:1].detach()
        module: Any
        for module in self.modules():
            if hasattr(module, "cpu_linear"):
                module.cpu_linear(x, module.weight, None)


@dataclass
class Sides:
    trainer: Any
    engine: Any  # TinyEngine

    def sync(self, *, without: str | None = None) -> None:
        """As TRL does it: tensor by tensor."""
        for name, parameter in self.trainer.named_parameters():
            if without is None or without not in name:
                self.engine.load_weights([(name, parameter.data)])
        self.engine.compute()


def sides(dtype: torch.dtype = torch.bfloat16, engine: torch.dtype = torch.bfloat16) -> Sides:
    return Sides(TinyTrainer(dtype), TinyEngine(engine))


class StaleHead(KeptLinear):
    """As stock vLLM: packed once, and used for ever."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._packed is None:
            self._packed = PackedLinear(weight.detach())
        return self._packed(x, weight, bias)

    def refresh(self) -> None:
        pass

    def _changed(self, weight: Tensor) -> bool:
        return False
