"""Settings: the pairs that are broken, and what they vary apart from the fault.

In: nothing. Out: SETTINGS, over models of two families, dtype pairs, sizes and contexts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

from driftscope_probes.diagnosis.drill.case import Setting
from driftscope_probes.dtypes import Dtype

#: Sequences × most response tokens, from a debugging run to a small step of a real one.
SIZES: tuple[tuple[int, int], ...] = (
    (16, 48),
    (64, 64),
    (8, 256),
    (32, 96),
    (128, 32),
    (8, 32),
    (16, 512),
    (256, 48),
    (32, 16),
    (512, 24),
    (24, 160),
    (8, 2048),
    (48, 128),
    (8, 1024),
)
#: bf16 on both sides is what most runs have.
DTYPE_PAIRS: tuple[tuple[Dtype, Dtype], ...] = (
    ("bf16", "bf16"),
    ("fp16", "fp16"),
    ("bf16", "bf16"),
    ("fp32", "fp32"),
    ("bf16", "fp32"),
)
TINY = ("tiny-llama", "tiny-qwen", "tiny-moe")
CONTEXTS = (0, 120, 0, 60)
#: Together at most so many sequences decode: more neither fit a small machine nor a real engine.
MOST_TOGETHER = 128
#: CPUs without fp16 arithmetic take 20 times as long for it.
MOST_FP16_TOKENS = 2500
#: The real model costs a second per decoded hundred tokens.
REAL_SIZES: tuple[tuple[int, int], ...] = ((8, 24), (12, 48), (8, 64), (16, 32))


def _name(setting: Setting) -> str:
    model = setting.model.removeprefix("tiny-").replace("smollm2-135m", "smollm2")
    pair = f"{setting.rollout_dtype}-{setting.trainer_dtype}"
    return f"{model}-{pair}-{setting.sequences}x{setting.max_tokens}"


def _settings() -> Iterator[Setting]:
    models, pairs, contexts = cycle(TINY), cycle(DTYPE_PAIRS), cycle(CONTEXTS)
    for index in range(3 * len(SIZES)):
        sequences, tokens = SIZES[index % len(SIZES)]
        rollout, trainer = next(pairs)
        if rollout == "fp16" and sequences * tokens > MOST_FP16_TOKENS:
            rollout, trainer = "bf16", "bf16"
        yield Setting(
            name="",
            model=next(models),
            rollout_dtype=rollout,
            trainer_dtype=trainer,
            sequences=sequences,
            max_tokens=tokens,
            context=next(contexts),
            batch=min(sequences, MOST_TOGETHER),
            microbatch=8 if tokens > 256 else 32,
            seed=index,
        )
    real_pairs: tuple[tuple[Dtype, Dtype], ...] = (
        ("bf16", "bf16"),
        ("fp32", "fp32"),
        ("bf16", "fp32"),
        ("bf16", "bf16"),
    )
    for index, (sequences, tokens) in enumerate(REAL_SIZES):
        rollout, trainer = real_pairs[index]
        yield Setting(
            name="",
            model="smollm2-135m",
            rollout_dtype=rollout,
            trainer_dtype=trainer,
            sequences=sequences,
            max_tokens=tokens,
            context=(0, 80)[index % 2],
            seed=100 + index,
        )


SETTINGS: tuple[Setting, ...] = tuple(
    replace(setting, name=f"{_name(setting)}-{setting.seed}") for setting in _settings()
)
