"""Tiny models with random weights, ragged prompts and rollouts for the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from driftscope_probes.dtypes import parse_mode
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace, TraceMeta
from driftscope_probes.trainer.load import LoadedModel, load_model
from driftscope_probes.trainer.settings import TrainerSettings

VOCABULARY = 211
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    # Larger than usual: flat next-token distributions would hide errors.
    "initializer_range": 0.15,
}
#: (prompt, response) tokens of each sequence: ragged, with single tokens.
LENGTHS = ((5, 9), (17, 1), (1, 23), (11, 4), (3, 40))

Rollouts = Callable[..., Trace]
Load = Callable[..., LoadedModel]
Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def save_llama(tmp_path: Path) -> Save:
    """save_llama(edit, **config): a tiny Llama; `edit` may change its weights before saving."""

    def save(edit: Callable[[Any], None] = lambda _: None, **config: Any) -> Path:
        folder = tmp_path / f"llama-{len(list(tmp_path.iterdir()))}"
        return _save(LlamaForCausalLM(_llama_config(**config)), folder, edit)

    return save


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(LlamaForCausalLM(_llama_config()), tmp_path_factory.mktemp("trainer") / "llama")


@pytest.fixture(scope="session")
def moe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = Qwen3MoeConfig(
        **SHAPE,
        num_hidden_layers=2,
        intermediate_size=96,
        moe_intermediate_size=48,
        num_experts=8,
        num_experts_per_tok=2,
    )
    return _save(Qwen3MoeForCausalLM(config), tmp_path_factory.mktemp("trainer") / "moe")


@pytest.fixture
def load(llama_folder: Path) -> Load:
    """load(mode, settings, folder): the tiny Llama unless another folder is given."""

    def load_for(
        mode: str, settings: TrainerSettings | None = None, folder: Path = llama_folder
    ) -> LoadedModel:
        weights = parse_mode(mode).weights
        return load_model(str(folder), folder.name, weights, settings or TrainerSettings())

    return load_for


@pytest.fixture
def prompts() -> PromptBatch:
    random = np.random.default_rng(1)
    return PromptBatch.from_lists(
        [random.integers(VOCABULARY, size=length).tolist() for length, _ in LENGTHS]
    )


@pytest.fixture
def make_rollout() -> Rollouts:
    """make_rollout(seed=, lengths=, dtype=, **settings): random tokens, plausible logprobs."""

    def make(
        seed: int = 2,
        lengths: Sequence[int] = tuple(response for _, response in LENGTHS),
        dtype: str = "fp16",
        **settings: Any,
    ) -> Trace:
        random = np.random.default_rng(seed)
        cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens = int(cu_seqlens[-1])
        recorded = {"logprobs_mode": "raw_logprobs", "temperature": 1.0, "top_p": 1.0, "top_k": 0}
        return Trace(
            token_ids=random.integers(VOCABULARY, size=tokens).astype(np.int32),
            logprobs=random.normal(-5.0, 1.0, tokens).astype(np.float32),
            cu_seqlens=cu_seqlens,
            mask=np.ones(tokens, np.bool_),
            meta=TraceMeta("rollout", "tiny", dtype, "hf", "0", {**recorded, **settings}),
        )

    return make


@pytest.fixture
def rollout(make_rollout: Rollouts) -> Trace:
    return make_rollout()


def _llama_config(**overrides: Any) -> LlamaConfig:
    config = {**SHAPE, "num_hidden_layers": 3, "intermediate_size": 160, **overrides}
    return LlamaConfig(**config)


def _save(
    model: PreTrainedModel, folder: Path, edit: Callable[[Any], None] = lambda _: None
) -> Path:
    """Weights from a fixed seed, whatever ran before."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.8, 1.2, generator=generator)
            else:
                parameter.normal_(0.0, SHAPE["initializer_range"], generator=generator)
        edit(model)
    model.save_pretrained(folder)
    return folder
