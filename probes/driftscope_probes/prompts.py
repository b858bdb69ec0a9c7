"""Prompts as text and as token ids, their file, and the prompts used when none are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import load_file, save_file

from driftscope_probes.request_model import RequestModel
from driftscope_probes.tokens import check_cu_seqlens

MAX_PROMPT_CHARACTERS = 1_000_000


class Message(RequestModel):
    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MAX_PROMPT_CHARACTERS)


Prompt = str | list[Message]


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompt i occupies the half-open range cu_seqlens[i]:cu_seqlens[i + 1]."""

    token_ids: NDArray[np.int32]  # [prompt tokens]
    cu_seqlens: NDArray[np.int64]  # [prompts + 1]

    def __post_init__(self) -> None:
        check_cu_seqlens(self.cu_seqlens, self.token_ids.size)
        self.token_ids.setflags(write=False)
        self.cu_seqlens.setflags(write=False)

    def __len__(self) -> int:
        return int(self.cu_seqlens.size - 1)

    def ids(self, index: int) -> list[int]:
        ids: list[int] = self.token_ids[
            self.cu_seqlens[index] : self.cu_seqlens[index + 1]
        ].tolist()
        return ids

    @property
    def longest(self) -> int:
        return int(np.diff(self.cu_seqlens).max())

    @staticmethod
    def from_lists(prompts: list[list[int]]) -> PromptBatch:
        lengths = np.array([0, *map(len, prompts)], np.int64)
        flat = np.array([token for prompt in prompts for token in prompt], np.int32)
        return PromptBatch(flat, np.cumsum(lengths))


def write_prompts(prompts: PromptBatch, path: Path) -> None:
    save_file({"token_ids": prompts.token_ids, "cu_seqlens": prompts.cu_seqlens}, path)


def read_prompts(path: Path) -> PromptBatch:
    tensors = load_file(path)
    return PromptBatch(tensors["token_ids"], tensors["cu_seqlens"])


DEMO_PROMPTS: tuple[str, ...] = (
    "Explain in three sentences why the sky is blue.",
    "A train leaves at 9:40 and arrives at 13:05. How long is the journey?",
    "Write a Python function that returns the n-th Fibonacci number.",
    "List five things to check before a long bicycle tour.",
    "What is the capital of France, and which river runs through it?",
    "Tell a short story about a lighthouse keeper who loses a key.",
    "Translate into French: The library opens at eight in the morning.",
    "If 3x + 7 = 25, what is x? Show each step.",
    "Summarise what a compiler does for someone who never programmed.",
    "Give two arguments for and two against working from home.",
    "Write a haiku about the first snow.",
    "What happens to water when it freezes, and why does ice float?",
    "Correct the grammar: He don't knows where is the station.",
    "Name three sorting algorithms and the cost of each.",
    "How would you explain a black hole to a ten-year-old?",
    "Write a polite e-mail that asks to move a meeting to Friday.",
    "What is the sum of the first twenty odd numbers?",
    "Describe the taste of a lemon without using the word sour.",
    "Which planets of the solar system have rings?",
    "Write a SQL query that counts the orders of each customer.",
    "Why do cats purr? Give the leading explanations.",
    "Continue the series and give the rule: 2, 6, 12, 20, 30.",
    "What should I cook with rice, eggs and spinach?",
    "Explain the difference between weather and climate.",
    "Prove that the square root of two is irrational.",
    "Write a product description for a wooden desk lamp.",
    "What are the three branches of government, and what do they do?",
    "A shop gives 15 % off a coat of 80 euros. What does it cost?",
    "How does a vaccine train the immune system?",
    "Turn this into one sentence: It rained. We stayed. We played cards.",
    "Give a regular expression that matches a date like 2024-05-31.",
    "What would change on Earth if the Moon disappeared?",
)


def demo_prompts(count: int) -> list[str]:
    """The first `count`; beyond the list they repeat, and differ by their request's seed."""
    return [DEMO_PROMPTS[index % len(DEMO_PROMPTS)] for index in range(count)]
