"""Policies: the models that the drill breaks, by name.

In: a name. Out: a model folder. Random weights would not do: their distributions are all alike,
where a real policy is sure of most tokens and undecided at some. So three tiny models are trained
here for some minutes on text that every Python brings along (the topics of `pydoc`), asked and
answered in the chat format, and then sharpened as a policy is by reinforcement learning.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from driftscope_probes.errors import ModelError
from driftscope_probes.models import fetch, tiny_random
from driftscope_probes.models.cache import build_once, home
from driftscope_probes.models.json_file import read_json, write_json
from driftscope_probes.progress import Progress, ProgressSink, discard

STEPS = 500
BATCH, WINDOW = 16, 192  # sequences and tokens of a training step
LEARNING_RATE = 3e-3
WARM_UP = 40  # steps
SEED = 20_261_129
#: The training ends at an entropy of about 3 nats per token; SmolLM2 has 2.2 at temperature 1, a
#: policy under training less. Logits times this bring the tiny ones to about 1 nat.
SHARPENED = 1.8
CONFIG_LIMIT = 2**20  # bytes
RECIPE = "drill-policy/1"


@dataclass(frozen=True, slots=True)
class Policy:
    """A model of the drill. `seed_model` builds the untrained folder; None: trained already."""

    name: str
    family: str  # llama or qwen
    mixture: bool = False
    seed_model: Callable[[Path, ProgressSink], None] | None = None

    def folder(self, progress: ProgressSink = discard) -> Path:
        """Built at the first call, in $DRIFTSCOPE_HOME/drill; minutes for the trained ones."""
        if self.seed_model is None:
            return fetch.resolve(self.name, progress=progress).path
        target = home() / "drill" / self.name
        build = partial(_train, self.seed_model)
        build_once(target, f"{RECIPE}/{self.name}", build, force=False, progress=progress)
        return target


def qwen_seed(folder: Path, progress: ProgressSink) -> None:
    """The tiny Llama's sizes with Qwen3's norms on queries and keys, and a larger rope base."""
    tiny_random.build_llama(folder, progress)
    config = read_json(folder / "config.json", CONFIG_LIMIT)
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0}
    write_json(
        folder / "config.json",
        config
        | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rope_parameters": rope},
    )


POLICIES: Mapping[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("smollm2-135m", "llama"),
        Policy("tiny-llama", "llama", seed_model=tiny_random.build_llama),
        Policy("tiny-qwen", "qwen", seed_model=qwen_seed),
        Policy("tiny-moe", "qwen", mixture=True, seed_model=tiny_random.build_moe),
    )
}


def policy_folder(name: str, progress: ProgressSink = discard) -> Path:
    """Raises ModelError for an unknown name."""
    if name not in POLICIES:
        raise ModelError(
            f"{name} is not a policy of the drill.", remedy=f"give one of {', '.join(POLICIES)}."
        )
    return POLICIES[name].folder(progress)


def _train(
    seed_model: Callable[[Path, ProgressSink], None], folder: Path, progress: ProgressSink
) -> None:
    """Same seeds on every machine; the weights differ by rounding, and by the few sentences in
    which versions of Python do, and need not agree."""
    seed_model(folder, progress)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    tokenizer.model_max_length = sys.maxsize  # a text, not a context: no warning
    text = torch.tensor(_tokens(tokenizer))
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    # Room for 2,048 response tokens behind a prompt.
    config.max_position_embeddings = 2 * tiny_random.MAX_CONTEXT
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
        _descend(model, text, progress)
    with torch.no_grad():
        model.lm_head.weight.mul_(SHARPENED)
    # Weights exact in bf16 and fp16, as a published checkpoint's are.
    model.to(torch.bfloat16).save_pretrained(folder)


def _tokens(tokenizer: Any) -> list[int]:
    """One long text of questions and answers: each topic's paragraphs, asked for by its name."""
    ids: list[int] = []
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            chat = [
                {"role": "user", "content": f"What does Python say of {name}?"},
                {"role": "assistant", "content": " ".join(paragraph.split())},
            ]
            ids += tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"]
    return ids


def _descend(model: Any, text: Tensor, progress: ProgressSink) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARM_UP) * (1.0 - step / STEPS)
    )
    for step in range(STEPS):
        starts = torch.randint(len(text) - WINDOW - 1, (BATCH,))
        window = torch.stack([text[start : start + WINDOW + 1] for start in starts.tolist()])
        logits = model(input_ids=window[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(Progress("training a tiny policy", step / STEPS, f"loss {loss.item():.2f}"))
