"""assert_logprobs_agree: log-probabilities of two sides in a test, judged as a pushed step is.

In: arrays, tensors or lists in any layout that the client accepts. Out: the analysis, or an
AssertionError that names verdict, cause and the first tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftscope_client.layouts import step_tensors
from driftscope_client.snapshot import CopiedArray, Copy, snapshot
from driftscope_probes.analysis import Analysis, analyze_step
from driftscope_probes.diagnosis.cause import NamedCause
from driftscope_probes.floor.store import default_folder, find_floor
from driftscope_probes.gates import GateOutcome, Judged, gate, parse_rule
from driftscope_probes.plural import counted
from driftscope_probes.push.conversion import converted
from driftscope_probes.push.pushed_step import PushedStep, pushed_step

#: Rounding alone explains what is below it.
DEFAULT_RULE: Final = "verdict>=above_floor"
#: A normal deviation beyond it comes once in 16,000 tokens.
FLOOR_SIGMAS: Final = 4.0
#: Tokens and pieces of evidence in a failure; the analysis has the rest.
MOST_NAMED: Final = 3
#: A test looks at one step; intervals by resampling would take longer than the rest.
RESAMPLES: Final = 0


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """What was looked at, and what came of it."""

    step: PushedStep
    analysis: Analysis
    outcome: GateOutcome

    @property
    def summary(self) -> str:
        """One line: verdict, excess over the floor, mean and largest |Δ|."""
        diagnosis, comparison = self.analysis.diagnosis, self.analysis.comparison.to_dict()
        excess = "" if diagnosis.excess is None else f" ({diagnosis.excess:.3g} times the floor)"
        numbers = (f"{name} {_shown(comparison.get(name))}" for name in _HEADLINES)
        return f"{diagnosis.verdict}{excess}: {', '.join(numbers)}"


class LogprobsDisagree(AssertionError):
    """`agreement.analysis` has every number and all the evidence."""

    def __init__(self, message: str, agreement: Agreement) -> None:
        super().__init__(message)
        self.agreement = agreement


_HEADLINES: Final = ("abs_diff_mean", "abs_diff_max", "kl_k3", "tokens", "sequences")


def assert_logprobs_agree(
    rollout: object,
    trainer: object,
    *,
    cu_seqlens: object = None,
    mask: object = None,
    dtype: str | None = None,
    rollout_dtype: str | None = None,
    trainer_dtype: str | None = None,
    model: str | None = None,
    fail_on: str | Sequence[str] = DEFAULT_RULE,
    metadata: Mapping[str, str] | None = None,
    **tensors: object,
) -> Agreement:
    """Raises LogprobsDisagree where a rule of `fail_on` holds.

    rollout, trainer: one array, tensor or list per sequence; flat with `cu_seqlens` (without, they
    are one sequence); or padded with `mask`. dtype: of both sides, `bf16`, `fp16` or `fp32`: it
    says how large the floor is. model: takes its calibrated floor, where there is one. Further
    tensors (`token_ids`, `rollout_token_ids`, `behavior_version` …) and metadata, as
    docs/push-format.md has them, let more causes be told apart.
    """
    __tracebackhide__ = True  # pytest shows the line of the test, not these
    rules = [parse_rule(text) for text in ([fail_on] if isinstance(fail_on, str) else fail_on)]
    given = {**tensors, "cu_seqlens": cu_seqlens, "mask": mask}
    known = {
        "rollout_dtype": rollout_dtype or dtype,
        "trainer_dtype": trainer_dtype or dtype,
        "model": model,
    }
    said = {**{name: value for name, value in known.items() if value}, **(metadata or {})}
    step = _step({"rollout_logprobs": rollout, "trainer_logprobs": trainer, **given}, said)
    floor = None
    if model is not None:
        floor = find_floor(default_folder(), model, said.get("rollout_dtype"),
                           said.get("trainer_dtype"))  # fmt: skip
    analysis = analyze_step(step, resamples=RESAMPLES, floor=floor)
    judged = Judged(analysis.comparison.to_dict(), analysis.diagnosis.to_dict())
    agreement = Agreement(step, analysis, gate(rules, [judged]))
    if not agreement.outcome.passed:
        raise LogprobsDisagree("\n".join(failure_lines(agreement)), agreement)
    return agreement


def _step(tensors: Mapping[str, object], metadata: Mapping[str, str]) -> PushedStep:
    """Raises MalformedStep or PushError for what fits no layout; both say what to give instead."""
    copies = snapshot(tensors)
    if "cu_seqlens" not in copies and (length := _flat_length(copies["rollout_logprobs"])):
        copies["cu_seqlens"] = CopiedArray(np.array([0, length]))
    made = step_tensors(copies)
    arrays = {name: converted(name, one.values, one.dtype) for name, one in made.items()}
    return pushed_step(arrays, metadata)


def _flat_length(copy: Copy) -> int:
    """Of one sequence without any more dimensions; 0: it is laid out otherwise."""
    if isinstance(copy, CopiedArray):
        return copy.values.size if copy.values.ndim == 1 else 0
    numbers = all(not isinstance(one, CopiedArray | list) for one in copy)
    return len(copy) if numbers else 0


def failure_lines(agreement: Agreement) -> list[str]:
    """What a test prints: the answer first, then what it rests on."""
    diagnosis = agreement.analysis.diagnosis
    lines = [f"rollout and trainer disagree: {diagnosis.sentence}"]
    lines += [f"  rule: {held.line}" for held in agreement.outcome.held]
    cause = diagnosis.cause
    if cause is not None:
        lines += _cause_lines(cause)
    elif diagnosis.causes:
        near = ", ".join(f"{one.name} {one.confidence:.2f}" for one in diagnosis.causes)
        lines.append(f"  cause: none is sure enough; nearest: {near}")
    lines.append(f"  numbers: {agreement.summary}")
    lines += _place_lines(agreement)
    if cause is None:
        lines += [f"  would tell more: {one}" for one in diagnosis.missing[:MOST_NAMED]]
    return lines


def _cause_lines(cause: NamedCause) -> list[str]:
    return [
        f"  cause: {cause.name} ({cause.confidence:.2f}): {cause.title}",
        *(
            f"  evidence: {one.what}: {_shown(one.value)}, expected {one.expected}"
            for one in cause.evidence[:MOST_NAMED]
        ),
        f"  what to do: {cause.remedy}",
    ]


def _place_lines(agreement: Agreement) -> list[str]:
    """The first tokens beyond rounding, or the largest differences where none is."""
    step = agreement.step
    delta = step.trainer.astype(np.float64) - step.rollout
    size = np.where(np.isfinite(delta), np.abs(delta), np.inf)
    size[~step.mask] = 0.0
    beyond = np.flatnonzero(size > FLOOR_SIGMAS * agreement.analysis.diagnosis.floor.sigma)
    if beyond.size:
        head = f"  first of {counted(int(beyond.size), 'token')} beyond rounding:"
        rows = beyond[:MOST_NAMED]
    else:
        head = "  largest differences:"
        rows = np.argsort(-size, kind="stable")[:MOST_NAMED]
        rows = rows[size[rows] > 0]
    return [head, *(f"    {_place(step, int(row))}" for row in rows)] if rows.size else []


def _place(step: PushedStep, row: int) -> str:
    limits: NDArray[np.int64] = step.cu_seqlens
    sequence = int(np.searchsorted(limits, row, side="right")) - 1
    rollout, trainer = float(step.rollout[row]), float(step.trainer[row])
    return (
        f"sequence {sequence}, token {row - int(limits[sequence])}: "
        f"rollout {rollout:.6g}, trainer {trainer:.6g}"
    )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
