"""Controls norm_epsilon and norm_cast_order: the trainer with norms as another side has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

import numpy as np

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import FALLEN_TO, Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import AS_IS_TRAINER, Gap, TrainerChange
from driftscope_probes.dtypes import parse_mode
from driftscope_probes.models.json_file import read_json
from driftscope_probes.trainer.question import NormCast

#: What configs call it: Llama and Qwen; GPT-2, Falcon; OPT, BERT; Mamba, LFM2.
CONFIG_NAMES: Final = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_eps")
#: A config of a large model stays far below it.
CONFIG_LIMIT: Final = 8 * 2**20
#: Defaults of libraries (torch 1e-5, T5 and Qwen 1e-6, vLLM 1e-6, BERT 1e-12), and beyond them up
#: to what would be seen as a broken model.
DECADES: Final = (1e-6, 1e-5, 1e-8, 1e-12, 1e-4, 1e-3, 1e-2, 1e-1)
#: Values are nearly linear in a small epsilon: two steps from the nearest decade reach any.
NEWTON_STEPS: Final = 2
#: Of epsilon, for the slope at it.
STEP: Final = 1.5
#: The right epsilon brings nearly every token closer to the engine, another one half of them. A
#: mixture's few tokens on another route outweigh sigma, and any change may bring them back.
CLOSER_FROM: Final = 0.66
#: Tokens with equal bits where only the place of the cast was wrong: healthy pairs of different
#: kernels have 0 to 0.02 in bf16.
EQUAL_FROM: Final = 0.25


def _epsilon(bench: Bench) -> Measurement:
    best: tuple[float, Gap] | None = None
    for epsilon in _candidates(bench):
        gap = bench.gap(trainer=TrainerChange(norm_epsilon=epsilon))
        if best is None or gap.sigma < best[1].sigma:
            best = (epsilon, gap)
        if (measured := _judged(bench, epsilon, gap)).outcome == "clean":
            return measured
    assert best is not None, "DECADES is empty"
    for _ in range(NEWTON_STEPS):
        better = _fitted(bench, best[0])
        if better is None or better[1].sigma >= best[1].sigma:
            break
        best = better
    return _judged(bench, *best)


def _judged(bench: Bench, epsilon: float, gap: Gap) -> Measurement:
    fallen = bench.fallen(gap, f"norm epsilon {epsilon:.3g}")
    sampled = bench.sample()
    own, other = (
        np.abs(bench.score(sampled.sequences, change) - sampled.logprobs)
        for change in (AS_IS_TRAINER, TrainerChange(norm_epsilon=epsilon))
    )
    moved = own != other
    closer = float(np.mean(other[moved] < own[moved])) if moved.any() else 0.0
    return replace(
        fallen,
        outcome=fallen.outcome if closer >= CLOSER_FROM else "dirty",
        evidence=(Evidence("moved tokens that come closer", round(closer, 3), f"{CLOSER_FROM}"),),
    )


def _candidates(bench: Bench) -> Iterator[float]:
    """What the two folders say, then what libraries take."""
    stated = [_stated(bench.sides.engine_model), _stated(bench.sides.trainer_model)]
    yield from dict.fromkeys([value for value in stated if value is not None] + [*DECADES])


def _stated(folder: Path) -> float | None:
    config = read_json(folder / "config.json", CONFIG_LIMIT)
    config = {**config, **config.get("text_config", {})}
    return next((float(config[name]) for name in CONFIG_NAMES if config.get(name)), None)


def _fitted(bench: Bench, epsilon: float) -> tuple[float, Gap] | None:
    """Where a line through two trials meets the engine's values in least squares."""
    sampled = bench.sample()
    here, there = (
        bench.score(sampled.sequences, TrainerChange(norm_epsilon=value)).astype(np.float64)
        for value in (epsilon, STEP * epsilon)
    )
    slope = (there - here) / ((STEP - 1.0) * epsilon)
    square = float(slope @ slope)
    if not square > 0.0:
        return None
    fitted = epsilon + float(slope @ (sampled.logprobs.astype(np.float64) - here)) / square
    if not 0.0 < fitted < max(DECADES):
        return None
    return fitted, bench.gap(trainer=TrainerChange(norm_epsilon=fitted))


def _cast_order(bench: Bench) -> Measurement:
    if parse_mode(bench.sides.trainer_mode).compute == "fp32":
        raise NotExercised(
            "the trainer computes in float32, where norms cast nothing.",
            remedy="run it in the dtype of your trainer, if that is another one.",
        )
    orders: tuple[NormCast, ...] = get_args(NormCast)
    gaps = {order: bench.gap(trainer=TrainerChange(norm_cast=order)) for order in orders}
    order = min(orders, key=lambda one: gaps[one].sigma)
    gap, base = gaps[order], bench.base
    bound = FALLEN_TO * base.sigma
    # Both orders round as much as each other: only where the rest is equal to the bit, or nearly,
    # does the right one take the difference away; a floor would hide it.
    outcome = Measurement(
        "clean" if gap.sigma <= bound and gap.equal >= EQUAL_FROM else "dirty",
        f"sigma, every norm casting {order.replace('_', ' its ')}",
        gap.sigma,
        f"up to {bound:.2g}",
    )
    equal = Evidence("tokens with equal bits then", round(gap.equal, 4), f"{base.equal:.4f} as is")
    return replace(outcome, evidence=(equal,))


NORM_EPSILON = Control(
    name="norm_epsilon",
    title="Set the epsilon of the trainer's norms to what the engine may have",
    separates="Another epsilon in the norms of one side from other faults of the whole function, "
    "by finding the epsilon with which the two agree.",
    null="Of a healthy pair, or of one with another fault, no epsilon takes half of the difference "
    "away and brings two thirds of the tokens closer (40 healthy pairs, 8 with other faults).",
    cost_s=1.5,
    positive="clean",
    points_to={"norm_eps": 0.97},
    run=_epsilon,
)

NORM_CAST_ORDER = Control(
    name="norm_cast_order",
    title="Let the trainer's norms cast before, and behind, the product with their weight",
    separates="Norms that round at another place from other differences of rounding, where the "
    "rest of the two sides is equal to the bit.",
    null="Neither order leaves a healthy bf16 pair with a quarter of its difference and equal bits "
    "in a quarter of its tokens (20 pairs; 0 to 2 % have equal bits).",
    cost_s=0.6,
    positive="clean",
    points_to={"rmsnorm_cast_order": 0.9},
    run=_cast_order,
)
