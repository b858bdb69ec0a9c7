"""Vocabulary: text and token ids of a model, and other ids for the same text.

In: a model folder. Out: what faults of tokens and of conversations need from its tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

#: A role's header in the chat templates of the drill's models, up to the end of its line.
_HEADER = re.compile(r"<\|im_start\|>\w+\n")
_END = re.compile(r"<\|im_end\|>\n?")


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    tokenizer: Any
    ids: dict[str, int]  # by the tokenizer's own spelling of a token
    spelling: dict[int, str]
    special: frozenset[int]

    @property
    def end(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def text(self, ids: Sequence[int]) -> str:
        decoded: str = self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return decoded

    def encoded(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def message(self, role: str, content: str) -> tuple[int, ...]:
        return self.encoded(f"<|im_start|>{role}\n{content}<|im_end|>\n")

    def reply_to(self, role: str, content: str) -> tuple[int, ...]:
        """What stands between two turns of the assistant."""
        return self.encoded(
            f"<|im_end|>\n<|im_start|>{role}\n{content}<|im_end|>\n<|im_start|>assistant\n"
        )

    def without_markers(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The plain text of a chat, as a trainer sees it that applies no template."""
        return self.encoded(_END.sub("\n", _HEADER.sub("", self.text(ids)))) or tuple(ids)

    def without_last_header(self, ids: Sequence[int]) -> tuple[int, ...]:
        """As `add_generation_prompt=False` leaves it."""
        text = self.text(ids)
        last = list(_HEADER.finditer(text))[-1:]
        return self.encoded(text[: last[0].start()]) if last else tuple(ids)

    def split_otherwise(
        self, ids: Sequence[int], places: int, rng: np.random.Generator
    ) -> tuple[int, ...]:
        """Up to `places` pairs of neighbours with the same text whose border lies elsewhere."""
        changed = list(ids)
        taken: set[int] = set()
        for index in rng.permutation(max(0, len(ids) - 1)):
            if len(taken) >= 2 * places:
                break
            other = self._other_border(changed[index], changed[index + 1], rng)
            if other is not None and not taken & {int(index), int(index) + 1}:
                changed[index], changed[index + 1] = other
                taken |= {int(index), int(index) + 1}
        return tuple(changed)

    def _other_border(
        self, left: int, right: int, rng: np.random.Generator
    ) -> tuple[int, int] | None:
        if {left, right} & self.special:
            return None
        text, border = self.spelling[left] + self.spelling[right], len(self.spelling[left])
        borders = [
            (self.ids[text[:at]], self.ids[text[at:]])
            for at in range(1, len(text))
            if at != border and text[:at] in self.ids and text[at:] in self.ids
        ]
        return borders[int(rng.integers(len(borders)))] if borders else None


@lru_cache(maxsize=8)
def vocabulary(model_folder: Path) -> Vocabulary:
    """Of a folder that a lab has loaded: it has a tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(
        model_folder, trust_remote_code=False, local_files_only=True
    )
    ids: dict[str, int] = tokenizer.get_vocab()
    return Vocabulary(
        tokenizer,
        ids,
        {index: token for token, index in ids.items()},
        frozenset(tokenizer.all_special_ids),
    )
