"""Prompts to token ids with the model's own tokenizer, and text of a requested length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from driftscope_probes.errors import RequestError
from driftscope_probes.prompts import DEMO_PROMPTS, Message, Prompt, PromptBatch


def tokenize(
    model_path: Path, prompts: Sequence[Prompt], *, chat_template: bool | None
) -> PromptBatch:
    """`chat_template` None: use one where the tokenizer has it. Raises RequestError."""
    tokenizer = AutoTokenizer.from_pretrained(
        model_path, trust_remote_code=False, local_files_only=True
    )
    has_template = tokenizer.chat_template is not None
    needs_template = any(not isinstance(prompt, str) for prompt in prompts)
    if not has_template and (chat_template or needs_template):
        raise RequestError(
            f"the tokenizer of {model_path.name} has no chat template.",
            remedy="give the prompts as plain text and leave --chat-template out.",
        )
    templated = has_template if chat_template is None else chat_template
    encode = _encode_chat if templated or needs_template else _encode_text
    batch = PromptBatch.from_lists([encode(tokenizer, prompt) for prompt in prompts])
    _refuse_empty(batch)
    return batch


def _encode_chat(tokenizer: Any, prompt: Prompt) -> list[int]:
    messages = [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt
    encoded = tokenizer.apply_chat_template(
        [message.model_dump() for message in messages],
        add_generation_prompt=True,
        return_dict=True,
    )
    return list(encoded["input_ids"])


def _encode_text(tokenizer: Any, prompt: Prompt) -> list[int]:
    return list(tokenizer(prompt)["input_ids"])


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
