"""Canonical names of settings: one per concept, whatever engines and trainers call it.

In: nothing. Out: NAMES. The part before the dot is the side: model, engine, sampling, trainer,
weights (how they get from one side to the other), environment, machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Name → what it is, with its unit or its words.
NAMES: Final[Mapping[str, str]] = {
    "engine.dtype": "dtype that the engine computes in: bf16, fp16, fp32, fp8",
    "engine.prefix_caching": "whether prompts reuse keys and values of earlier ones",
    "sampling.temperature": "0 is greedy",
    "trainer.dtype": "dtype that the trainer's forward computes in: bf16, fp16, fp32",
}
