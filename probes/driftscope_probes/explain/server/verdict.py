"""From measurements to a verdict, a sentence and what to do. Free of torch.

In: gap, floors, settings, the best set of changes, the onset. Out: Concluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from driftscope_probes.explain.report import Gap, Verdict
from driftscope_probes.explain.server.floors import floors_limit
from driftscope_probes.explain.server.report import (
    Best,
    Floors,
    Precision,
    Tried,
    Truncation,
)


@dataclass(frozen=True, slots=True)
class Concluded:
    verdict: Verdict
    sentence: str
    remedy: str | None


@dataclass(frozen=True, slots=True)
class Findings:
    gap: Gap
    sigma: float
    floors: Floors
    precision: Precision
    settings: Sequence[Tried]
    best: Best | None
    truncation: Truncation | None


def conclude(found: Findings) -> Concluded:
    """A server that contradicts itself comes first: no change of the trainer can mend that."""
    apart = [one for one in found.settings if one.consistent is False]
    if apart:
        return _inconsistent(found, apart)
    if found.gap.equal_fraction == 1.0 and not found.precision.resolution:
        return Concluded(
            "equal", f"All {found.gap.tokens} log-probabilities are equal bit for bit.", None
        )
    onset = found.truncation
    parted = onset is not None and onset.where in ("position", "length")
    if found.sigma <= floors_limit(found.floors) and not parted:
        return _rounding(found)
    if found.best is not None and found.best.at_floor:
        return _explained(found, found.best)
    return _unexplained(found)


def _gap(found: Findings) -> str:
    return f"mean |Δ| {found.gap.abs_diff_mean:.3g} nats (sigma {found.sigma:.2g})"


def _before(found: Findings, best: Best) -> str:
    """What the changes were measured on: the sampled tokens, or behind an onset the long texts."""
    if found.truncation is None or found.truncation.at is None:
        return f"{_gap(found)[0].upper()}{_gap(found)[1:]}"
    return f"Mean |Δ| {best.abs_diff_mean_before:.3g} nats on texts of {found.truncation.longest}"


def _onset(found: Findings) -> str:
    onset = found.truncation
    return "" if onset is None or onset.at is None else f" {onset.sentence}"


def _inconsistent(found: Findings, apart: Sequence[Tried]) -> Concluded:
    if any(one.name == "temperature" for one in apart):
        return Concluded(
            "fault",
            "The server reports log-probabilities behind the temperature (processed_logprobs): "
            "those of a token sampled at another temperature are not the model's own.",
            "start the server with --logprobs-mode raw_logprobs, or let the trainer divide its "
            "logits by the temperature and say --logprobs-mode processed_logprobs here.",
        )
    worst = max(apart, key=lambda one: one.own_sigma or 0.0)
    return Concluded(
        "fault",
        f"The server contradicts itself: {worst.says}, its own log-probabilities differ by "
        f"sigma {worst.own_sigma:.2g}, beyond the {found.floors.rounding:.2g} of rounding."
        + _onset(found),
        "look for the fault in the server, not in the trainer: "
        "driftscope probe determinism --engine vllm-server names the axis.",
    )


def _rounding(found: Findings) -> Concluded:
    sentence = (
        f"{_gap(found)[0].upper()}{_gap(found)[1:]} is what rounding explains: {found.floors.basis}"
    )
    best = found.best
    if best is not None and best.changes:
        sentence += f". Less of it is left, {best.abs_diff_mean_after:.3g}, with {_and(best.says)}"
    return Concluded("rounding", sentence + ".", None)


def _explained(found: Findings, best: Best) -> Concluded:
    fault = "fault" in best.kinds
    left = f"{best.abs_diff_mean_after:.3g} nats"
    alone = ", and none of them does alone" if best.all_or_nothing else ""
    sentence = (
        f"{_before(found, best)} falls to {left}, the floor, with "
        f"{_and(best.says)}{alone}: the server computes as that."
        f"{_as_good(best)}{_onset(found)}"
    )
    if not fault:
        return Concluded("rounding", sentence, None)
    return Concluded(
        "fault", sentence, f"make both sides agree: {_and(best.changes)}, or the server otherwise."
    )


def _as_good(best: Best) -> str:
    if not best.as_good:
        return ""
    return f" As well with {', or '.join(best.as_good)}: the numbers do not tell which."


def _unexplained(found: Findings) -> Concluded:
    best = found.best
    part = (
        f" The most that falls is to {best.abs_diff_mean_after:.3g}, with {_and(best.says)}; "
        "that is not the floor."
        if best is not None and best.changes
        else " No change that could be tried brings it down."
    )
    return Concluded(
        "unexplained",
        f"{_gap(found)[0].upper()}{_gap(found)[1:]} is more than rounding "
        f"({found.floors.rounding:.2g}) explains.{part}{_onset(found)}",
        "give --other-model for checkpoints that the server might hold; explain --model or "
        "--dumps compares op by op.",
    )


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)
