"""Running text as token ids of the model's own tokenizer, of which every prompt is cut."""

from __future__ import annotations

from pathlib import Path

from driftscope_probes.demo_prompts import DEMO_PROMPTS
from driftscope_probes.tokenization import tokenize


def prompt_text(model: Path) -> tuple[int, ...]:
    """The shipped prompts, one after another. Raises RequestError."""
    batch = tokenize(model, DEMO_PROMPTS, chat_template=False)
    return tuple(batch.token_ids.tolist())
