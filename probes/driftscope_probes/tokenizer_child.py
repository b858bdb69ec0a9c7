"""Child process that encodes prompts with a model's own tokenizer, without loading torch.

    python -m driftscope_probes.tokenizer_child WORKDIR

request.json: model_path, prompts (texts or lists of messages), chat_template. The result: token
ids, one list per prompt. transformers imports all of its models with its tokenizers where it finds
torch, which takes five times as long as encoding; a process that has torch anyway calls `encode`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main
from driftscope_probes.errors import RequestError
from driftscope_probes.progress import ProgressSink

#: A text, or a conversation: role and content of each message.
Encodable = str | list[dict[str, Any]]


def encode(
    model_path: Path, prompts: list[Encodable], *, chat_template: bool | None
) -> list[list[int]]:
    """`chat_template` None: use one where the tokenizer has it. Raises RequestError."""
    from transformers import AutoTokenizer

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
    encode_one = _encode_chat if templated or needs_template else _encode_text
    return [encode_one(tokenizer, prompt) for prompt in prompts]


def _encode_chat(tokenizer: Any, prompt: Encodable) -> list[int]:
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
        add_generation_prompt=True,
        return_dict=True,
    )
    return list(encoded["input_ids"])


def _encode_text(tokenizer: Any, prompt: Encodable) -> list[int]:
    return list(tokenizer(prompt)["input_ids"])


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    # What is None here counts as not installed, for transformers too.
    sys.modules["torch"] = None  # type: ignore[assignment]
    token_ids = encode(
        Path(request["model_path"]), request["prompts"], chat_template=request["chat_template"]
    )
    return {"token_ids": token_ids}


if __name__ == "__main__":
    child_main(run)
