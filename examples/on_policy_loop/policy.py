"""The policy on disk, in the dtype that engine and trainer shall compute in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from examples.on_policy_loop import task
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from driftscope_probes.models.fetch import fetch

#: A Llama of a million weights: a step takes seconds, and vLLM's attention on the CPU takes heads
#: of 32 elements. Its start is drawn wider than usual, so that the policy is not uniform.
SMALL_SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}


@dataclass(frozen=True, slots=True)
class Policy:
    model: Any  # transformers, in `dtype`; name_or_path is the folder that vLLM reads
    tokenizer: Any
    prompts: tuple[str, ...]
    reward: task.Reward


def make_policy(name: str, folder: Path, dtype: torch.dtype, seed: int) -> Policy:
    """Written to `folder`: TRL has no setting for the engine's dtype, which is the one on disk."""
    if name == task.SMALL:
        model, tokenizer = _small(seed)
        prompts = task.PROMPTS
    else:
        path = fetch(name).path
        model, tokenizer = AutoModelForCausalLM.from_pretrained(path), _tokenizer(path)
        prompts = task.SENTENCES
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return Policy(model, tokenizer, prompts, task.even_tokens)


def _small(seed: int) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    words = Tokenizer(
        models.WordLevel({word: at for at, word in enumerate(task.VOCABULARY)}, task.PAD)
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=task.PAD, eos_token=task.END, padding_side="left"
    )
    config = LlamaConfig(
        vocab_size=len(task.VOCABULARY),
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=True,
        **SMALL_SIZES,
    )
    return LlamaForCausalLM(config), tokenizer


def _tokenizer(path: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
