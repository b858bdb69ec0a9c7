"""Tiny models with random weights, and sequences of them laid out in every way a trainer has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

VOCABULARY = 97
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 88,
    "max_position_embeddings": 512,
    # Larger than usual: flat distributions would hide errors.
    "initializer_range": 0.2,
}
#: Ragged, none a multiple of a block but one.
LENGTHS = (21, 64, 5, 33, 70, 1, 48, 17)

Build = Callable[..., Any]
Lay = Callable[..., list["Layout"]]


@dataclass(frozen=True, slots=True)
class Layout:
    """One forward pass. `rows` finds the tokens of the sequences in it, one after another."""

    input_ids: Tensor
    attention_mask: Tensor | None
    position_ids: Tensor
    rows: Tensor


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def build() -> Build:
    """build(family, dtype, **config): weights from a fixed seed, in training mode."""

    def make(family: str, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
        torch.manual_seed(0)
        shape = {**SHAPE, **config}
        if family == "llama":
            model: Any = LlamaForCausalLM(LlamaConfig(**shape))
        elif family == "qwen3":
            model = Qwen3ForCausalLM(Qwen3Config(**shape))
        else:
            experts = {"moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 3}
            model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, **experts))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.uniform_(0.8, 1.2)
        return model.to(dtype).train()

    return make


@pytest.fixture
def sequences() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(VOCABULARY, (n,), generator=generator) for n in LENGTHS]


@pytest.fixture
def lay(sequences: list[Tensor]) -> Lay:
    """lay(kind, count, multiple): all sequences, `count` a pass; kind: left, right or packed.

    Lengths are rounded up to a `multiple`: by padding, or in a packed row by a tail of its own.
    """

    def make(kind: str = "right", count: int = 1, multiple: int = 1) -> list[Layout]:
        place = _packed if kind == "packed" else _padded
        return [
            place(sequences[start : start + count], multiple, kind == "left")
            for start in range(0, len(sequences), count)
        ]

    return make


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _padded(sequences: list[Tensor], multiple: int, left: bool) -> Layout:
    length = _up(max(map(len, sequences)), multiple)
    ids = torch.zeros(len(sequences), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    rows = []
    for index, sequence in enumerate(sequences):
        start = length - len(sequence) if left else 0
        ids[index, start : start + len(sequence)] = sequence
        mask[index, start : start + len(sequence)] = 1
        rows.append(index * length + start + torch.arange(len(sequence)))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return Layout(ids, None if mask.all() else mask, positions, torch.cat(rows))


def _packed(sequences: list[Tensor], multiple: int, _: bool) -> Layout:
    lengths = [_up(len(sequence), multiple) for sequence in sequences]
    ids, rows, start = torch.zeros(1, sum(lengths), dtype=torch.int64), [], 0
    for sequence, length in zip(sequences, lengths, strict=True):
        ids[0, start : start + len(sequence)] = sequence
        rows.append(start + torch.arange(len(sequence)))
        start += length
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return Layout(ids, None, positions, torch.cat(rows))
