"""Rounding: healthy pairs that differ by it alone, in as many shapes as life has them.

In: a lab and a setting. Out: the step of an undamaged pair. A diagnosis that finds a fault here
cries wolf.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, product
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.damage import sample, scored_by
from driftscope_probes.diagnosis.drill.faults.routing import routed_step, routers
from driftscope_probes.diagnosis.drill.lab import Lab
from driftscope_probes.diagnosis.drill.pool import pair
from driftscope_probes.dtypes import Dtype
from driftscope_probes.push.pushed_step import PushedStep

#: Some trainers and engines run their output layer in fp32, on both sides.
FLOAT32_HEADS = 0.15


@dataclass(frozen=True, slots=True)
class _HeadInFloat32:
    def __call__(self, module: Any, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        return F.linear(inputs[0].float(), module.weight.float())


def head_in_float32(model: Any) -> Any:
    model.lm_head.register_forward_hook(_HeadInFloat32())
    return model


def healthy(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    """`severity` says nothing here."""
    if rng.random() < FLOAT32_HEADS:
        sampled = sample(lab, setting, head_in_float32(lab.engine(fresh=True)))
        trainer = head_in_float32(lab.trainer(fresh=True))
        return lab.step(sampled, scored_by(lab, setting, sampled, trainer))
    # Half the trainers of mixtures push routes.
    if routers(lab.engine()) and rng.random() < 0.5:
        return routed_step(lab, setting, lab.engine(), lab.trainer())
    made = pair(lab, setting)
    return lab.step(made.sampled, made.scored)


INJECTIONS: tuple[Injection, ...] = (Injection(None, "a", "nothing: a healthy pair", healthy),)

PAIRS: tuple[tuple[Dtype, Dtype], ...] = (
    ("bf16", "bf16"),
    ("fp16", "fp16"),
    ("fp32", "fp32"),
    ("bf16", "fp32"),
    ("fp32", "bf16"),
    ("fp16", "bf16"),
)


@dataclass(frozen=True, slots=True)
class Variant:
    """How a healthy run may differ from the next one; None: all sequences together."""

    name: str
    sequences: int = 16
    max_tokens: int = 48
    context: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    processed: bool = False
    batch: int | None = None
    microbatch: int = 8


VARIANTS: tuple[Variant, ...] = (
    Variant("plain"),
    Variant("cool", temperature=0.7, processed=True),
    Variant("warm", temperature=1.2, processed=True),
    Variant("raw-cool", temperature=0.6),
    Variant("near-greedy", temperature=0.2),
    Variant("raw-nucleus", top_p=0.9),
    Variant("raw-top-k", top_k=20),
    Variant("one-by-one", sequences=8, batch=1, microbatch=8),
    Variant("singles-scored", sequences=12, microbatch=1),
    Variant("long-prompts", context=200, microbatch=4),
    Variant("many-short", sequences=128, max_tokens=16, microbatch=32),
    Variant("few-long", sequences=8, max_tokens=192, microbatch=2),
    Variant("tiny-step", sequences=8, max_tokens=16),
)
#: For the larger sizes, in bf16 and fp32 only: CPUs without fp16 arithmetic crawl.
LARGE: tuple[Variant, ...] = (
    Variant("large", sequences=512, max_tokens=24, batch=128, microbatch=64),
    Variant("wide", sequences=256, max_tokens=48, batch=64, microbatch=32, context=60),
    Variant("deep", sequences=8, max_tokens=1024, microbatch=4),
    Variant("deepest", sequences=8, max_tokens=2048, microbatch=2),
    Variant("medium", sequences=64, max_tokens=128, microbatch=16),
)
MODELS = ("tiny-llama", "tiny-qwen", "tiny-moe")


def _setting(variant: Variant, model: str, pair: tuple[Dtype, Dtype], seed: int) -> Setting:
    return Setting(
        name=f"{model.split('-')[1]}-{pair[0]}-{pair[1]}-{variant.name}-{seed}",
        model=model,
        rollout_dtype=pair[0],
        trainer_dtype=pair[1],
        sequences=variant.sequences,
        max_tokens=variant.max_tokens,
        context=variant.context,
        temperature=variant.temperature,
        top_p=variant.top_p,
        top_k=variant.top_k,
        processed=variant.processed,
        batch=variant.batch,
        microbatch=variant.microbatch,
        seed=seed,
    )


def _settings() -> Iterator[Setting]:
    seed = 1000
    for variant, (model, dtypes) in product(VARIANTS, product(MODELS, PAIRS)):
        seed += 1
        yield _setting(variant, model, dtypes, seed)
    quick = cycle((PAIRS[0], PAIRS[2], PAIRS[3]))
    for variant, model, _ in product(LARGE, MODELS, range(3)):
        seed += 1
        yield _setting(variant, model, next(quick), seed)
    # bf16 on both sides is what most runs are: more draws of it.
    for variant, model in product(VARIANTS[:8], MODELS):
        seed += 1
        yield _setting(variant, model, PAIRS[0], seed)
    real = cycle((PAIRS[0], PAIRS[2], PAIRS[3]))
    for variant in VARIANTS[:7] + VARIANTS[9:10]:
        seed += 1
        small = replace(variant, sequences=8, max_tokens=24)
        yield replace(
            _setting(small, "smollm2-135m", next(real), seed), name=f"smollm2-{variant.name}-{seed}"
        )


HEALTHY_SETTINGS: tuple[Setting, ...] = tuple(_settings())
