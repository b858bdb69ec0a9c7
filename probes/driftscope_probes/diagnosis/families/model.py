"""Model: the two sides implement or configure the layers differently.

In: an Examination. Out: findings on positions, normalisation, dropout and the trainer's own code.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.body import Floats, Ints, typical
from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.families.function import ALIKE, other_function, share
from driftscope_probes.diagnosis.plots import noise_by_certainty, noise_by_position


def _grows(seen: Examination) -> tuple[float, str, Ints]:
    """Correlation of the noise with the position, which coordinate that is, and its values."""
    by_index, by_position = seen.growth
    positions = seen.places.positions
    if positions is not None and by_position >= 0.9 * by_index:
        return by_position, "absolute position", positions
    return by_index, "response index", seen.places.body.index


def _ends_of(seen: Examination, coordinate: Ints) -> tuple[float, float]:
    """Noise over the floor in the first and the last sixth of the coordinate's range."""
    residual = seen.places.body.residual
    low, high = np.quantile(coordinate, [1 / 6, 5 / 6])
    floor = seen.floor.sigma
    return (
        typical(residual[coordinate <= low]) / floor,
        typical(residual[coordinate >= high]) / floor,
    )


def _rope(seen: Examination) -> tuple[float, float, float, float, str, Ints] | None:
    body = seen.places.body
    if body.tokens < 128:
        return None
    related, name, coordinate = _grows(seen)
    first, last = _ends_of(seen, coordinate)
    rise = last / max(first, 1e-9)
    sure = ramp(related, 0.55, 0.85) * ramp(rise, 1.3, 2.0) * ramp(last, 2.0, 4.0)
    sure *= seen.same_token * (1 - seen.stepwise)
    return sure, first, last, rise, name, coordinate


def _rope_finding(seen: Examination, confidence: float, found: tuple) -> Finding | None:  # type: ignore[type-arg]
    _, first, last, rise, name, coordinate = found
    if confidence < 0.05:
        return None
    related = seen.growth[1] if name == "absolute position" else seen.growth[0]
    return Finding(
        confidence,
        (
            Evidence(f"correlation of the noise with the {name}", round(related, 2), "about 0"),
            Evidence("noise of the first sixth over the floor", round(first, 1), "1"),
            Evidence("noise of the last sixth over the floor", round(last, 1), "1"),
        ),
    )


def rope_config(seen: Examination) -> Finding | None:
    found = _rope(seen)
    if found is None:
        return None
    confidence = found[0] * (0.6 + 0.25 * ramp(found[1], 6.0, 2.0))
    return _rope_finding(seen, max(confidence, share(seen, "rope_config")), found)


def rope_dropped(seen: Examination) -> Finding | None:
    """Already wrong at short distances, and by a lot: another base rather than another scaling."""
    found = _rope(seen)
    if found is None:
        return None
    return _rope_finding(seen, found[0] * (0.25 + 0.4 * ramp(found[1], 3.0, 8.0)), found)


def norm_eps(seen: Examination) -> Finding | None:
    confidence = share(seen, "norm_eps")
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence("typical noise on the logits over the floor", round(seen.moved, 2), "up to 2"),
            Evidence(
                "same at every position, sequence and turn",
                round(seen.same_everywhere, 2),
                "1 for a fault of the whole function",
            ),
        ),
    )


#: Who says that the trainer drew says what is seen, unless something else is worse.
STATED_DROPOUT = 0.95


def dropout(seen: Examination) -> Finding | None:
    """Equal contexts get unequal answers from the trainer, not from the engine."""
    repeats = repeated_contexts(seen)
    base = other_function(seen)
    if repeats is None:
        confidence = 0.1 * base
        evidence = [Evidence("contexts that occur twice", 0, "some, to see a random draw")]
    else:
        pairs, spread, overall = repeats
        random = spread / max(overall, 1e-12)
        confidence = (
            0.9
            * ramp(random, 0.3, 0.6)
            * ramp(spread / seen.floor.sigma, 1.3, 2.5)
            * ramp(seen.signals.excess or 0.0, 1.4, 2.2)
            * ramp(pairs, 1, 4)
            * seen.same_token
            * (1.0 - clean_group(seen))
        )
        evidence = [
            Evidence("equal contexts, by the engine's own values", pairs, "any number"),
            Evidence(
                "the trainer's noise between them, nats on the logits",
                float(f"{spread:.3g}"),
                f"the floor, {seen.floor.sigma:.2g}",
            ),
            Evidence("that over its noise against the engine", round(random, 2), "below 0.3"),
        ]
    stated = seen.settings.trainer_dropout
    if stated is not None:
        confidence = max(confidence, STATED_DROPOUT * ramp(seen.signals.excess or 0.0, 1.4, 2.2))
        evidence.append(Evidence("metadata: trainer_dropout", stated, "none"))
    if confidence < 0.05:
        return None
    return Finding(confidence, tuple(evidence))


def clean_group(seen: Examination) -> float:
    """1 where some sequences are at the floor and others far from it: no draw spares sequences."""
    split = seen.places.two_groups
    return (
        0.0
        if split is None
        else seen.two_kinds * seen.clean(split) * ramp(split.contrast, 0.7, 1.4)
    )


def repeated_contexts(seen: Examination) -> tuple[int, float, float] | None:
    """Tokens whose whole context occurs twice: the pairs, the trainer's typical noise between
    them, and that against the engine, both on the logits.

    Responses to one prompt share their context as long as their ids agree; that the prompts are
    the same is told by the engine's own values, which then agree as well.
    """
    body, ids = seen.signals.body, seen.signals.extras.token_ids
    if ids is None:
        return None
    tokens = ids[body.token]
    first = np.flatnonzero(body.index == 0)
    if first.size < 4:
        return None
    differences: list[Floats] = []
    scales: list[Floats] = []
    against: list[Floats] = []
    order = first[np.lexsort((body.rollout[first], tokens[first]))]
    tolerance = 6 * seen.floor.sigma
    for one, two in zip(order[:-1], order[1:], strict=True):
        if tokens[one] != tokens[two]:
            continue
        limit = int(min(body.tokens - max(one, two), 64))
        a, b = slice(one, one + limit), slice(two, two + limit)
        rest = 1.0 - body.certainty[a] + 1e-3
        agree = (
            (tokens[a] == tokens[b])
            & (body.index[a] == body.index[b])
            & (body.sequence[a] == body.sequence[one])
            & (body.sequence[b] == body.sequence[two])
            & (np.abs(body.rollout[a] - body.rollout[b]) < tolerance * rest)
        )
        length = int(np.argmin(agree)) if not agree.all() else limit
        if length == 0:
            continue
        differences.append((body.trainer[a] - body.trainer[b])[:length])
        scales.append(rest[:length])
        against.append(body.delta[a][:length])
    if not differences:
        return None
    rest = np.concatenate(scales)
    unsure = rest > 0.02
    if unsure.sum() < 4:
        return None
    # Two draws differ by √2 times the noise of one.
    spread = typical(np.concatenate(differences)[unsure] / rest[unsure]) / np.sqrt(2)
    return int(unsure.sum()), spread, typical(np.concatenate(against)[unsure] / rest[unsure])


def trainer_bug(seen: Examination) -> Finding | None:
    """Wrong from the first step on: nothing has been synced that could have gone wrong."""
    version = seen.settings.weights_version
    confidence = share(seen, "trainer_model_bug")
    if confidence < 0.05:
        return None
    evidence = [
        Evidence("typical noise on the logits over the floor", round(seen.moved, 2), "up to 2"),
        Evidence("mean Δ, nats", round(seen.signals.mean_delta[0], 4), "about 0"),
    ]
    if version is not None:
        evidence.append(Evidence("weights_version", version, "0: nothing was reloaded yet"))
    return Finding(confidence, tuple(evidence))


CAUSES = (
    Cause(
        name="rope_config",
        title="rotary positions are configured differently",
        level="weights",
        mechanism="Another scaling (YaRN, linear, NTK), another base or another precision of the "
        "angles.",
        signature="The difference grows with the absolute position; short contexts are clean.",
        remedy="Give both sides the same rope parameters, and keep the angles in float32.",
        next_control="Score short prompts only: they are at the floor.",
        detect=rope_config,
        plot=noise_by_position,
        alike=ALIKE,
    ),
    Cause(
        name="rope_parameters_dropped",
        title="one side lost its rope parameters and runs with a default base",
        level="weights",
        mechanism="transformers 5 renamed rope_theta into rope_parameters: an older reader falls "
        "back to 10000.",
        signature="Wrong from the start and growing with the length, by tenths of nats per token.",
        remedy="Write both names into config.json, or bring both sides to one version of "
        "transformers.",
        next_control="Print the base that each side really uses.",
        detect=rope_dropped,
        plot=noise_by_position,
        alike=ALIKE,
    ),
    Cause(
        name="norm_eps",
        title="the epsilon of the normalisation differs",
        level="weights",
        mechanism="A default of 1e-5 or 1e-6 instead of the model's own value.",
        signature="A little more than rounding, the same everywhere.",
        remedy="Take rms_norm_eps from the model's config on both sides.",
        next_control="Compare the outputs of the first normalisation on both sides.",
        detect=norm_eps,
        plot=noise_by_certainty,
        alike=ALIKE,
    ),
    Cause(
        name="dropout_active",
        title="the trainer scores with dropout switched on",
        level="weights",
        mechanism="The forward runs in training mode and the model's config has dropout (GPT-2 and "
        "Megatron: 0.1).",
        signature="Equal contexts get different answers from the trainer; the difference is as "
        "large in FP32.",
        remedy="Set every dropout of the config to 0, or score old log-probabilities in eval mode.",
        next_control="Score the step twice in the trainer: two answers must have the same bits.",
        detect=dropout,
        plot=noise_by_certainty,
    ),
    Cause(
        name="trainer_model_bug",
        title="the trainer's own model code is wrong",
        level="weights",
        mechanism="A transposed, missing or doubled term in the trainer's implementation; the "
        "engine and a third implementation agree.",
        signature="There from step 0 on, the same everywhere, the same in every dtype.",
        remedy="Score with the reference implementation (transformers) and fix the layer that "
        "differs first.",
        next_control="Score with a third implementation: it sides with the engine.",
        detect=trainer_bug,
        plot=noise_by_certainty,
        alike=ALIKE,
    ),
)
