"""Which side carries the error: both sides of a cell against an FP32 forward over the same tokens.

With e = log-probability minus the reference's, Δ = e_trainer − e_rollout, so that
var Δ = var e_rollout + var e_trainer − 2 cov: exactly, since all are second moments around 0 over
the same tokens. Each side's part of var Δ is what its error shares with Δ; the parts add up to 1.

In: the two sides and the reference. Out: WhichSide per cell. Free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from driftscope_probes.dtypes import parse_mode
from driftscope_probes.floor.estimates import Sums, sequence_sums
from driftscope_probes.mismatch import RatioInterval, SequenceMean, Undefined, ratio_interval
from driftscope_probes.mismatch.resampling import DEFAULT_SEED, Interval, mean_intervals
from driftscope_probes.record import Record
from driftscope_probes.trace import Trace

REFERENCE_MODE: Final = "fp32"
#: A side carries the error where its part of var Δ is surely above this: twice the other's.
CARRIES_FROM: Final = 2 / 3
Carries = Literal["rollout", "trainer", "both", "neither", "unknown"]


class Change(Record):
    """Another cell of the same grid: what a change of dtype bought there, as measured."""

    sides: Literal["rollout", "trainer", "both"]  # whose dtype differs from this cell's
    engine_dtype: str
    trainer_dtype: str
    sigma: float
    closer: float  # this cell's sigma over that one's; above 1 the change helps
    low: float | None  # of the 95 % interval of `closer`
    high: float | None


class WhichSide(Record):
    """Sigmas in nats on the logits, as in docs/floor.md."""

    sigma: float  # of Δ
    rollout_sigma: float  # of the rollout against the FP32 reference
    trainer_sigma: float
    covariance: float  # of the two errors, nats²
    correlation: float | None  # None where one side has no error
    rollout_part: float | None  # of sigma², 0 to 1 unless the errors are strongly correlated
    rollout_part_low: float | None  # 95 % interval over sequences
    rollout_part_high: float | None
    carries: str  # a Carries
    sentence: str
    changes: tuple[Change, ...]  # the most helpful first
    reference: str


@dataclass(frozen=True, slots=True, eq=False)
class Errors:
    """Second moments of one cell, per sequence; their `value` is a variance of the logits."""

    difference: Sums
    rollout: Sums
    trainer: Sums
    both: Sums  # of the product of the two errors
    rollout_part: Sums  # of −Δ · e_rollout

    @property
    def sigma(self) -> float:
        return _root(self.difference.value())


CellKey = tuple[str, str]  # (engine dtype, trainer mode)


def errors_of(rollout: Trace, trainer: Trace, reference: Trace) -> Errors:
    """The three have the same tokens; masked and non-finite ones take no part."""
    said = np.where(rollout.mask, rollout.logprobs.astype(np.float64), np.nan)
    exact = reference.logprobs.astype(np.float64)
    # Two equal infinities have no difference: they become NaN and take no part.
    with np.errstate(invalid="ignore"):
        of_rollout = said - exact
        of_trainer = np.where(np.isfinite(said), trainer.logprobs - exact, np.nan)
        difference = of_trainer - of_rollout

    def sums(first: Any, second: Any) -> Sums:
        # Whatever is compared, the same tokens take part.
        used = np.where(np.isfinite(difference), said, np.nan)
        return sequence_sums(first, second, used, rollout.cu_seqlens)

    return Errors(
        difference=sums(difference, difference),
        rollout=sums(of_rollout, of_rollout),
        trainer=sums(of_trainer, of_trainer),
        both=sums(of_rollout, of_trainer),
        rollout_part=sums(-difference, of_rollout),
    )


def which_sides(cells: Mapping[CellKey, Errors], *, resamples: int) -> dict[CellKey, WhichSide]:
    return {key: _which_side(key, cells, resamples) for key in cells}


def _which_side(key: CellKey, cells: Mapping[CellKey, Errors], resamples: int) -> WhichSide:
    errors = cells[key]
    rollout, trainer = _root(errors.rollout.value()), _root(errors.trainer.value())
    covariance = errors.both.value()
    part = _part(errors)
    low, high = _part_interval(errors, resamples)
    carries = carried_by(key, errors.sigma, part, low, high)
    if carries == "unknown":
        part = low = high = None  # 1 by construction, which says nothing
    changes = tuple(sorted(_changes(key, cells, resamples), key=lambda c: c.closer, reverse=True))
    return WhichSide(
        sigma=errors.sigma,
        rollout_sigma=rollout,
        trainer_sigma=trainer,
        covariance=covariance,
        correlation=covariance / (rollout * trainer) if rollout and trainer else None,
        rollout_part=part,
        rollout_part_low=low,
        rollout_part_high=high,
        carries=carries,
        sentence=" ".join(
            (
                _carries_sentence(key, carries, part, low, high, rollout, trainer),
                *(() if carries in QUIET else _buys_sentence(changes)),
            )
        ),
        changes=changes,
        reference=f"trainer forward in {REFERENCE_MODE} over the same tokens",
    )


def _part(errors: Errors) -> float | None:
    total = float(errors.difference.squares.sum())
    return float(errors.rollout_part.squares.sum()) / total if total else None


def _part_interval(errors: Errors, resamples: int) -> tuple[float | None, float | None]:
    if not resamples:
        return None, None
    mean = SequenceMean(errors.rollout_part.squares, errors.difference.squares)
    found = mean_intervals({"part": mean}, resamples=resamples, seed=DEFAULT_SEED)["part"]
    return (found.low, found.high) if isinstance(found, Interval) else (None, None)


def carried_by(
    key: CellKey, sigma: float, part: float | None, low: float | None, high: float | None
) -> Carries:
    """`both` also where the interval, or its absence, leaves it open."""
    if sigma == 0.0 or part is None:
        return "neither"
    if key[0] == key[1] == REFERENCE_MODE:
        return "unknown"
    if low is None or high is None:
        return "both"
    if low > CARRIES_FROM:
        return "rollout"
    return "trainer" if high < 1 - CARRIES_FROM else "both"


def _carries_sentence(
    key: CellKey,
    carries: Carries,
    part: float | None,
    low: float | None,
    high: float | None,
    rollout: float,
    trainer: float,
) -> str:
    if carries == "neither":
        return "Both sides agree bit for bit: neither carries an error."
    if carries == "unknown":
        return (
            "Both sides compute in the reference's own precision, so that neither is closer to the "
            "truth."
        )
    assert part is not None, "a difference has parts"
    if key[1] == REFERENCE_MODE:
        return (
            f"The rollout carries all of the error, {rollout:.2g} nats: the trainer is the FP32 "
            "reference."
        )
    against = f"against FP32 the rollout errs by {rollout:.2g} nats, the trainer by {trainer:.2g}"
    if low is None or high is None:
        return f"Both sides may carry the error (no interval from so few sequences): {against}."
    shown = f"{_percent(part)} ({_percent(low)} to {_percent(high)})"
    if carries == "both":
        open_ = low < CARRIES_FROM < high or low < 1 - CARRIES_FROM < high
        how = "as far as these sequences tell, " if open_ else ""
        return f"Both sides carry the error: {how}{shown} of it is the rollout's; {against}."
    if carries == "trainer":
        shown = f"{_percent(1 - part)} ({_percent(1 - high)} to {_percent(1 - low)})"
    other = "trainer" if carries == "rollout" else "rollout"
    return f"The {carries} carries {shown} of the error, not the {other}; {against}."


def _changes(key: CellKey, cells: Mapping[CellKey, Errors], resamples: int) -> Iterator[Change]:
    here = cells[key]
    for other, there in cells.items():
        if other == key or there.sigma == 0.0:
            continue
        low, high = _closer_interval(here, there, resamples)
        one_sided: Literal["rollout", "trainer"] = "trainer" if other[0] == key[0] else "rollout"
        yield Change(
            sides=one_sided if other[0] == key[0] or other[1] == key[1] else "both",
            engine_dtype=other[0],
            trainer_dtype=other[1],
            sigma=there.sigma,
            closer=here.sigma / there.sigma,
            low=low,
            high=high,
        )


def _closer_interval(
    here: Errors, there: Errors, resamples: int
) -> tuple[float | None, float | None]:
    """Sequence i of both answers the same prompt: the same sequences are drawn."""
    if not resamples:
        return None, None
    sums = (here.difference, there.difference)
    variances = (SequenceMean(each.squares, each.room) for each in sums)
    found = ratio_interval(*variances, resamples=resamples, seed=DEFAULT_SEED)
    if isinstance(found, Undefined):
        return None, None
    assert isinstance(found, RatioInterval)
    return _root(found.low), _root(found.high)


#: Only a change whose interval lies above 1 is worth a sentence. FP32 on a side is left out of it:
#: the reference, not a setting that anybody trains or serves with. `changes` has it.
HELPS_FROM: Final = 1.0
#: Where there is no error whose reduction could be of interest.
QUIET: Final = ("neither", "unknown")


def _buys_sentence(changes: tuple[Change, ...]) -> Iterator[str]:
    """The best change of one side and the best of both, as the grid measured them."""
    usable = [change for change in changes if not _is_reference(change)]
    if not usable:
        yield "The grid has no other cell without FP32 to compare with."
        return
    one = next((change for change in usable if change.sides != "both"), None)
    two = next((change for change in usable if change.sides == "both"), None)
    helping = [change for change in (one, two) if change is not None and _surely_helps(change)]
    for change in helping:
        yield f"{_named(change)} buys a factor {_times(change)}, measured in this grid."
    if not helping:
        yield "No other cell of this grid is surely closer, those with FP32 aside."


def _surely_helps(change: Change) -> bool:
    return change.low is not None and change.low > HELPS_FROM


def _is_reference(change: Change) -> bool:
    return "fp32" in (change.engine_dtype, parse_mode(change.trainer_dtype).compute)


def _named(change: Change) -> str:
    if change.sides == "both":
        return f"Changing both sides, to {change.engine_dtype} × {change.trainer_dtype},"
    if change.sides == "trainer":
        return f"Changing the trainer alone to {change.trainer_dtype}"
    return f"Changing the rollout alone to {change.engine_dtype}"


def _times(change: Change) -> str:
    value = f"{change.closer:.2g}"
    if change.low is None or change.high is None:
        return value
    return f"{value} ({change.low:.2g} to {change.high:.2g})"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _root(variance: float) -> float:
    return math.sqrt(max(variance, 0.0))
