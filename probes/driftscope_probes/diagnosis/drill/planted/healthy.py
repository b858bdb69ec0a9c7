"""Healthy pairs, on which no control may speak up: models, dtypes, prompts and settings in turns.

In: how many, a seed. Out: grounds and pairs without a plant.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

from driftscope_probes.diagnosis.drill.planted.ground import LONG_CONTEXT, Ground
from driftscope_probes.diagnosis.drill.planted.systems import (
    CHUNK,
    GREEDY,
    PlantedSystem,
    engine_settings,
    system_of,
    trainer_settings,
)
from driftscope_probes.diagnosis.drill.policies import policy_folder
from driftscope_probes.dtypes import Dtype

MODELS: Final = ("tiny-llama", "tiny-qwen", "tiny-moe")
#: A mixture in bf16 has flips of its own, whose size is not that of a dense model's floor.
DTYPES: Final[tuple[tuple[Dtype, Dtype], ...]] = (("bf16", "bf16"), ("fp32", "fp32"))


def _variants() -> list[dict[str, Any]]:
    """Settings that make controls happen: caches, chunks, micro-batches, packs, two threads."""
    return [
        {},
        {"engine": engine_settings(prefix_caching=True), "context": LONG_CONTEXT},
        {"trainer": trainer_settings(micro_batch=4)},
        {"trainer": trainer_settings(micro_batch=4, batching="packed")},
        {
            "engine": engine_settings(chunked_prefill_tokens=CHUNK, threads=2),
            "sampling": GREEDY,
            "context": 80,
        },
    ]


def healthy_pairs(count: int, seed: int, workdir: Path) -> Iterator[tuple[Ground, PlantedSystem]]:
    """Every model, dtype and setting in turns; another round has other seeds."""
    rounds = list(product(_variants(), MODELS, DTYPES))
    for index in range(count):
        changes, model, dtypes = rounds[index % len(rounds)]
        own_seed = seed + index
        work = workdir / f"healthy-{index}"
        work.mkdir(parents=True)
        ground = Ground(policy_folder(model), work, own_seed, *dtypes)
        settings = dict(changes)
        prompts = ground.prompts(settings.pop("context", 0))
        yield ground, system_of(ground, None, prompts=prompts, **settings)
