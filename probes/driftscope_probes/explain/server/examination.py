"""The measurements of an explanation from outside, one after another, within the budget.

In: server, trainer, what the server sampled. Out: Measured.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from driftscope_probes.diagnosis.controls.sides import Sequences, Tokens, gap_of
from driftscope_probes.errors import ProbeError
from driftscope_probes.explain.report import Gap
from driftscope_probes.explain.server.client import Served, ServerClient
from driftscope_probes.explain.server.floors import floors_limit
from driftscope_probes.explain.server.greedy import Combination, Set, Trial, combine
from driftscope_probes.explain.server.measure import Moved, moved
from driftscope_probes.explain.server.profile import measured as profile_of
from driftscope_probes.explain.server.report import (
    Best,
    Coincides,
    Floors,
    NotTried,
    Precision,
    Step,
    Tried,
    Truncation,
)
from driftscope_probes.explain.server.request import ServerExplainRequest
from driftscope_probes.explain.server.server_settings import Asked, ServerSettings, finite
from driftscope_probes.explain.server.sizes import coincidences
from driftscope_probes.explain.server.trainer_side import ServerTrainer
from driftscope_probes.explain.server.truncation import Onset, locate
from driftscope_probes.explain.server.variants import Other, Variant, variants_of
from driftscope_probes.progress import Progress, ProgressSink

#: Fractions of the examination at which settings, truncation and variants begin.
SETTINGS, TRUNCATION, VARIANTS = 0.0, 0.3, 0.5


@dataclass(slots=True)
class Measured:
    gap: Gap
    sigma: float
    floors: Floors
    precision: Precision
    told_cache: bool
    settings: list[Tried] = field(default_factory=list)
    variants: list[Tried] = field(default_factory=list)
    not_tried: list[NotTried] = field(default_factory=list)
    best: Best | None = None
    truncation: Truncation | None = None
    notes: list[str] = field(default_factory=list)


class Examination:
    def __init__(
        self,
        request: ServerExplainRequest,
        client: ServerClient,
        trainer: ServerTrainer,
        deadline: float,
    ) -> None:
        """`deadline`: of time.monotonic(); no measurement begins behind it."""
        self._request, self._client, self.trainer = request, client, trainer
        self._deadline = deadline

    def run(
        self,
        base: Served,
        scored: Served | None,
        texts: Tokens,
        floors: Floors,
        precision: Precision,
        configs: Mapping[str, Mapping[str, Any]],
        others: Mapping[str, Other],
        progress: ProgressSink,
    ) -> Measured:
        """`configs`: config.json of "engine" and, where it is another, "trainer".

        Raises ProbeError where the trainer as it is cannot score.
        """
        own = self.trainer.score(base.sequences)
        gap = gap_of(base.bits, own)
        found = Measured(
            gap=Gap(
                tokens=gap.tokens,
                abs_diff_mean=gap.abs_mean,
                abs_diff_max=gap.largest,
                equal_fraction=gap.equal,
            ),
            sigma=gap.sigma,
            floors=floors,
            precision=precision,
            told_cache=base.cached_tokens is not None,
        )
        asked = Asked(base, scored, texts, floors.rounding)
        self._settings(asked, found, progress)
        progress(Progress("cutting long prompts", TRUNCATION))
        if scored is not None:
            self._truncate(texts, floors, configs, found)
        self._variants(base, texts, configs, others, found, progress)
        return found

    def _settings(self, asked: Asked, found: Measured, progress: ProgressSink) -> None:
        settings = ServerSettings(self._request, self._client, self.trainer, asked)
        measurements = settings.each()
        for index, (name, measure) in enumerate(measurements):
            part = SETTINGS + (TRUNCATION - SETTINGS) * index / len(measurements)
            progress(Progress("changing what a request can change", part, name))
            try:
                found.settings.append(measure())
            except ProbeError as error:
                found.not_tried.append(NotTried(name=name, reason=error.message))

    def _truncate(
        self,
        texts: Tokens,
        floors: Floors,
        configs: Mapping[str, Mapping[str, Any]],
        found: Measured,
    ) -> None:
        longest = len(texts[0])
        try:
            onset = locate(
                lambda length: profile_of(self._client, self.trainer, texts, length),
                longest,
                floors.rounding,
            )
        except ProbeError as error:
            found.not_tried.append(NotTried(name="truncation", reason=error.message))
            return
        sizes = (
            []
            if onset.at is None
            else coincidences(onset.at, configs, self._client.facts.max_length, longest)
        )
        found.truncation = Truncation(
            where=onset.where,
            at=onset.at,
            texts=len(texts),
            longest=longest,
            sigma_before=onset.sigma_before,
            sigma_from=onset.sigma_from,
            coincides=[
                Coincides(what=one.what, tokens=one.tokens, chance=one.chance) for one in sizes
            ],
            steps=[Step(length=step.length, sigma=step.sigma) for step in onset.steps],
            sentence=_onset_sentence(onset, [one.what for one in sizes], longest),
        )

    def _variants(
        self,
        base: Served,
        texts: Tokens,
        configs: Mapping[str, Mapping[str, Any]],
        others: Mapping[str, Other],
        found: Measured,
        progress: ProgressSink,
    ) -> None:
        """On the sampled tokens; behind an onset, where these may not reach, on the texts."""
        engine = configs["engine"]
        variants = {
            one.name: one
            for one in variants_of(self._request, configs.get("trainer", engine), engine, others)
        }
        served = base
        if found.truncation is not None and found.truncation.at is not None:
            onset_texts = tuple(texts)
            sequences = Sequences(
                tuple(text[:1] for text in onset_texts), tuple(text[1:] for text in onset_texts)
            )
            served = self._client.score(sequences, together=False)
            found.notes.append(
                "The trainer was changed on the long texts, since the sides part at "
                f"{found.truncation.at} tokens."
            )
        runs = 0

        def measure(changes: Set) -> Moved | None:
            nonlocal runs
            if changes and time.monotonic() > self._deadline:
                self.trainer.refused.setdefault(" + ".join(changes), "the time was used up")
                return None
            runs += 1
            name = " + ".join(changes) or "as it is"
            part = VARIANTS + (1.0 - VARIANTS) * min(runs / (len(variants) + 1), 1.0)
            progress(Progress("changing the trainer", part, name))
            scored = self.trainer.tried(served.sequences, [variants[change] for change in changes])
            return None if scored is None else moved(served.bits, scored)

        base_moved = moved(served.bits, self.trainer.score(served.sequences))
        room = _room(served)

        def enough(apart: Moved) -> bool:
            return not apart.any() or _sigma(apart, room) <= floors_limit(found.floors)

        combination = combine({name: one.axis for name, one in variants.items()}, measure, enough)
        found.variants = [
            _tried(trial, variants, base_moved.size)
            for trial in (*combination.alone, *combination.further)
        ]
        found.not_tried += [
            NotTried(name=name, reason=reason) for name, reason in self.trainer.refused.items()
        ]
        if combination.chosen:
            found.best = _best(combination, variants, base_moved, room, found.floors)


def _room(served: Served) -> float:
    """Sum of (1 − p)²."""
    certain = np.expm1(np.minimum(np.nan_to_num(served.logprobs, neginf=0.0), 0.0))
    return float(np.sum(certain * certain))


def _sigma(apart: Moved, room: float) -> float:
    return float(np.sqrt(np.sum(apart * apart) / max(room, LEAST_ROOM)))


#: Where every token was certain.
LEAST_ROOM: Final = 1e-12


def _tried(trial: Trial, variants: Mapping[str, Variant], tokens: int) -> Tried:
    chosen = [variants[name] for name in trial.changes]
    return Tried(
        name=" + ".join(trial.changes),
        side="trainer",
        kind="fault" if any(one.kind == "fault" for one in chosen) else "rounding",
        says=" and ".join(one.title for one in chosen),
        tokens=tokens,
        abs_diff_mean_before=trial.effect.before,
        abs_diff_mean_after=trial.effect.after,
        z=finite(trial.effect.z),
        needed=trial.effect.needed,
        effect=trial.effect.direction,
        own_sigma=None,
        own_equal_fraction=None,
        consistent=None,
    )


def _best(
    combination: Combination,
    variants: Mapping[str, Variant],
    before: Moved,
    room: float,
    floors: Floors,
) -> Best:
    chosen = [variants[name] for name in combination.chosen]
    alone = {trial.changes[0]: trial.effect.direction for trial in combination.alone}
    sigma = _sigma(combination.after, room)
    return Best(
        changes=list(combination.chosen),
        says=[one.title for one in chosen],
        kinds=[one.kind for one in chosen],
        abs_diff_mean_before=float(before.mean()),
        abs_diff_mean_after=float(combination.after.mean()),
        sigma_after=sigma,
        at_floor=sigma <= floors_limit(floors),
        equal_fraction_after=float(np.mean(combination.after == 0.0)),
        all_or_nothing=len(chosen) > 1 and all(alone.get(one.name) != "lowers" for one in chosen),
        as_good=[" + ".join(changes) for changes in combination.as_good],
    )


def _onset_sentence(onset: Onset, sizes: list[str], longest: int) -> str:
    match = f", which is {sizes[0]}" if sizes else ""
    levels = f"sigma {onset.sigma_before:.2g} before, {onset.sigma_from:.2g} from there on"
    if onset.where == "position":
        return f"The sides part at position {onset.at}{match}, however long the prompt: {levels}."
    if onset.where == "length":
        return (
            f"Prompts of {onset.at} tokens and more differ at every position{match}: "
            f"sigma {onset.sigma_before:.2g} one token shorter, {onset.sigma_from:.2g} at it."
        )
    if onset.where == "everywhere":
        return "The sides differ from the first tokens on: no window, chunk or table begins there."
    return f"Up to {longest} tokens the sides part at no position."
