"""Prompts to token ids with the model's own tokenizer; text of a requested length. No torch."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.errors import RequestError
from driftscope_probes.prompts import DEMO_PROMPTS, Prompt, PromptBatch
from driftscope_probes.tokenizer_child import Encodable, encode

MODULE: Final = "driftscope_probes.tokenizer_child"


def tokenize(
    model_path: Path, prompts: Sequence[Prompt], *, chat_template: bool | None
) -> PromptBatch:
    """`chat_template` None: use one where the tokenizer has it. Raises RequestError."""
    given: list[Encodable] = [
        prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]
        for prompt in prompts
    ]
    encoding = encode if "torch" in sys.modules else _encode_apart
    batch = PromptBatch.from_lists(encoding(model_path, given, chat_template=chat_template))
    _refuse_empty(batch)
    return batch


def _encode_apart(
    model_path: Path, prompts: list[Encodable], *, chat_template: bool | None
) -> list[list[int]]:
    """In a process that leaves torch out, so that this one stays small and starts soon."""
    request = {
        "model_path": str(model_path),
        "prompts": prompts,
        "chat_template": chat_template,
    }
    with tempfile.TemporaryDirectory(prefix="driftscope-tokens-") as folder:
        child = ChildProcess(MODULE, request, Path(folder), explain_crash=explain_probe_crash)
        token_ids: list[list[int]] = child.wait()["token_ids"]
    return token_ids


def _refuse_empty(batch: PromptBatch) -> None:
    for index in range(len(batch)):
        if not batch.ids(index):
            raise RequestError(
                f"prompt {index} has no token under this model's tokenizer.",
                remedy="give a prompt with visible text.",
            )


def check_context(batch: PromptBatch, max_tokens: int, max_context: int) -> None:
    """Raise RequestError when a prompt and its response do not fit the model's context."""
    for index in range(len(batch)):
        length = len(batch.ids(index))
        if length + max_tokens > max_context:
            raise RequestError(
                f"prompt {index} has {length} tokens; with {max_tokens} response tokens that "
                f"exceeds the model's context of {max_context}.",
                remedy=f"shorten it, or lower --max-tokens to at most {max_context - length}."
                if length < max_context
                else "shorten it.",
            )


def prompt_text(model: Path) -> tuple[int, ...]:
    """The shipped prompts, one after another. Raises RequestError."""
    batch = tokenize(model, DEMO_PROMPTS, chat_template=False)
    return tuple(batch.token_ids.tolist())
