"""What was found on an axis: differences of outputs, their measures, verdict and replay command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.determinism.batch import Onset, Value
from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.engines.sessions.question import Output
from driftscope_probes.explain.batch_explanation import BatchExplanation
from driftscope_probes.record import Record
from driftscope_probes.verdicts import AxisVerdictName


@dataclass(frozen=True, slots=True)
class Difference:
    """Counts over the tokens of one row; `max_*` over the tokens that are comparable."""

    tokens: int
    equal_tokens: int
    equal_logprobs: int
    max_abs_diff: float | None  # nats; None: nothing comparable and finite
    max_ulps: int | None  # None: as above
    first_token: int | None  # index of the first differing token
    first_logprob: int | None  # index of the first differing bit of a log-probability

    @property
    def equal(self) -> bool:
        return self.equal_tokens == self.tokens == self.equal_logprobs


def compare_outputs(reference: Output, other: Output) -> Difference:
    """Where lengths differ, the missing tokens count as differing."""
    longest = max(reference.token_ids.size, other.token_ids.size)
    shared = min(reference.token_ids.size, other.token_ids.size)
    agree = reference.token_ids[:shared] == other.token_ids[:shared]
    comparable = shared if agree.all() else int(np.argmin(agree))
    left, right = reference.logprobs[:comparable], other.logprobs[:comparable]
    same_bits = left.view(np.uint32) == right.view(np.uint32)
    unequal = np.flatnonzero(~same_bits)
    finite = np.isfinite(left) & np.isfinite(right)
    steps = np.abs(_rank(left[finite]) - _rank(right[finite]))
    apart = np.abs(left[finite].astype(np.float64) - right[finite].astype(np.float64))
    first_token = comparable if comparable < longest else None
    return Difference(
        tokens=longest,
        equal_tokens=comparable,
        equal_logprobs=int(same_bits.sum()),
        max_abs_diff=float(apart.max()) if apart.size else None,
        max_ulps=int(steps.max()) if steps.size else None,
        first_token=first_token,
        first_logprob=int(unequal[0]) if unequal.size else first_token,
    )


def _rank(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rank of each float32 among all, so that neighbours are 1 apart; -0 and +0 share a rank."""
    bits = values.view(np.uint32).astype(np.int64)
    magnitude = bits & 0x7FFFFFFF
    return np.where(bits >> 31, -magnitude, magnitude)


class FirstDifference(Record):
    cell: Value
    sequence: str  # key of the row
    token: int  # index in the response, from 0


@dataclass(frozen=True, slots=True)
class Measure:
    """Counts over rows; a Measured has them as fractions."""

    outputs: int
    tokens: int
    equal_tokens: int
    equal_logprobs: int
    unique_outputs: int  # distinct token sequences, the most that one request gave
    unique_bitwise: int  # the same with the bits of the log-probabilities
    max_abs_diff: float | None
    max_ulps: int | None
    first_differing_token: FirstDifference | None
    first_differing_logprob: FirstDifference | None

    @property
    def differs(self) -> bool:
        return self.equal_logprobs < self.tokens

    def fields(self) -> dict[str, Any]:
        """Those of a Measured."""
        fields = asdict(self)
        del fields["equal_tokens"], fields["equal_logprobs"]
        return fields | {
            "bitwise_equal_tokens": self.equal_tokens / self.tokens,
            "bitwise_equal_logprobs": self.equal_logprobs / self.tokens,
        }


def measure(
    cell: Value, rows: Sequence[tuple[str, Difference]], unique: int, bitwise: int
) -> Measure:
    """`rows`: (key, difference from the reference) of every row of one cell."""
    assert rows, "a cell without rows shows nothing"
    differences = [difference for _, difference in rows]
    return Measure(
        outputs=len(rows),
        tokens=sum(difference.tokens for difference in differences),
        equal_tokens=sum(difference.equal_tokens for difference in differences),
        equal_logprobs=sum(difference.equal_logprobs for difference in differences),
        unique_outputs=unique,
        unique_bitwise=bitwise,
        max_abs_diff=_most([difference.max_abs_diff for difference in differences]),
        max_ulps=_most([difference.max_ulps for difference in differences]),
        first_differing_token=_first(cell, [(key, d.first_token) for key, d in rows]),
        first_differing_logprob=_first(cell, [(key, d.first_logprob) for key, d in rows]),
    )


def total(cells: Sequence[Measure], unique: int, bitwise: int) -> Measure:
    """Over the cells of an axis; the first difference is that of the first cell that has one."""
    tokens = [c.first_differing_token for c in cells if c.first_differing_token]
    logprobs = [c.first_differing_logprob for c in cells if c.first_differing_logprob]
    return Measure(
        outputs=sum(cell.outputs for cell in cells),
        tokens=sum(cell.tokens for cell in cells),
        equal_tokens=sum(cell.equal_tokens for cell in cells),
        equal_logprobs=sum(cell.equal_logprobs for cell in cells),
        unique_outputs=unique,
        unique_bitwise=bitwise,
        max_abs_diff=_most([cell.max_abs_diff for cell in cells]),
        max_ulps=_most([cell.max_ulps for cell in cells]),
        first_differing_token=tokens[0] if tokens else None,
        first_differing_logprob=logprobs[0] if logprobs else None,
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """What an axis was tried on."""

    axis: str
    dtype: str
    kernels: str
    engine: str


class Measured(Record):
    """Fractions are of tokens; a row's tokens after a differing one count too. None: not run."""

    outputs: int | None = None
    tokens: int | None = None
    unique_outputs: int | None = None
    unique_bitwise: int | None = None
    max_abs_diff: float | None = None
    max_ulps: int | None = None
    first_differing_token: FirstDifference | None = None
    first_differing_logprob: FirstDifference | None = None
    bitwise_equal_tokens: float | None = None
    bitwise_equal_logprobs: float | None = None


class _Valued(Record):
    value: Value


class Cell(Measured, _Valued):
    """One value of an axis against its reference."""


class _Tried(Record):
    axis: str
    dtype: str
    kernels: str
    engine: str
    verdict: AxisVerdictName
    reason: str | None = None  # why it was not run, or why a difference is not the axis's
    reference: Value | None = None


class AxisReport(Measured, _Tried):
    bits: str | None = None  # hash of all outputs; None: they depend on more than the request
    explanation: BatchExplanation | None = None  # of batch_size, where it was asked for
    onset: Onset | None = None
    replay: str | None = None
    seconds: float = 0.0
    cells: list[Cell] = []

    @staticmethod
    def run(
        subject: Subject,
        reference: Value,
        total: Measure,
        cells: Mapping[Value, Measure],
        onset: Onset | None,
        *,
        not_repeatable: str | None = None,
        bits: str | None = None,
        seconds: float = 0.0,
    ) -> AxisReport:
        """`not_repeatable`: why a difference is not the axis's."""
        differs: AxisVerdictName = "differs" if not_repeatable is None else "not_repeatable"
        return AxisReport(
            **asdict(subject),
            verdict=differs if total.differs else "equal",
            reason=not_repeatable,
            reference=reference,
            **total.fields(),
            bits=bits,
            onset=onset,
            replay=None,
            seconds=round(seconds, 3),
            cells=[Cell(value=value, **cell.fields()) for value, cell in cells.items()],
        )

    @staticmethod
    def not_run(subject: Subject, reason: str) -> AxisReport:
        empty = dict.fromkeys(("reference", *Measured.model_fields, "bits", "onset", "replay"))
        told: dict[str, Any] = {"verdict": "not_run", "reason": reason, "seconds": 0.0, "cells": []}
        return AxisReport(**asdict(subject), **empty, **told)


class DeterminismReport(Record):
    schema_version: str
    kind: Literal["determinism"]
    created_at: str
    model: dict[str, Any]
    request: DeterminismRequest
    axes: list[AxisReport]
    engines: list[dict[str, Any]] = []  # settings of every engine that was started
    environment: dict[str, Any]
    lint: dict[str, Any] | None = None  # a LintReport; None: of before there was one
    timing: dict[str, float | int]
    notes: list[str]


def _most(values: Sequence[float | int | None]) -> Any:
    return max((value for value in values if value is not None), default=None)


def _first(cell: Value, differing: Sequence[tuple[str, int | None]]) -> FirstDifference | None:
    found = [(token, key) for key, token in differing if token is not None]
    if not found:
        return None
    token, key = min(found, key=lambda pair: pair[0])
    return FirstDifference(cell=cell, sequence=key, token=token)


_OPTIONS = {
    "attention_split_kv": "--attention-split-kv",
    "prompt_tokens": "--prompt-tokens",
    "max_tokens": "--max-tokens",
    "samples": "--samples",
    "runs": "--runs",
    "seed": "--seed",
    "server_url": "--server-url",
    "server_model": "--server-model",
}


def replay_command(
    request: DeterminismRequest, subject: Subject, values: Sequence[Value], threads: int
) -> str:
    """`values`: the reference and the one value to compare with it."""
    words = ["driftscope", "probe", "determinism", "--model", request.model]
    words += ["--axes", subject.axis, "--values", ",".join(map(str, values)), "--no-bisect"]
    words += ["--engine", subject.engine, "--engine-dtypes", subject.dtype]
    if subject.kernels != "stock":
        words += ["--kernels", subject.kernels]
    if subject.engine != "vllm-server":
        # Named even where it was not asked for: "every core" is another number on another machine.
        words += ["--threads", str(threads)]
    for name, option in _OPTIONS.items():
        given, default = getattr(request, name), DeterminismRequest.model_fields[name].default
        if given != default:
            words += _words(option, given)
    return shlex.join(words)


def _words(option: str, given: object) -> list[str]:
    if isinstance(given, bool):
        return [option if given else option.replace("--", "--no-", 1)]
    if isinstance(given, list | tuple):
        return [option, ",".join(map(str, given))]
    return [option, str(given)]
