"""A task whose reward a line of code verifies: say words with an even number."""

from __future__ import annotations

from collections.abc import Callable

#: One token each, for the small model.
WORDS = tuple(f"n{number}" for number in range(62))
PAD, END = "<pad>", "<eos>"
VOCABULARY = (PAD, END, *WORDS)
PROMPTS = tuple(" ".join(WORDS[start : start + 3]) for start in range(0, 48, 6))
#: Name of the model that is made here.
SMALL = "small"
#: For a model that knows words.
SENTENCES = ("Count to ten:", "My favourite colour is", "The sum of two and two is", "Once")

Reward = Callable[..., list[float]]


def even_tokens(completion_ids: list[list[int]], **_: object) -> list[float]:
    """The share of tokens whose id is even: half for a policy that knows nothing."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]
