"""Measurement: what a control found, and what it needs to run. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.errors import ProbeError

Outcome = Literal["clean", "dirty"]
#: What a control needs beyond an engine and a trainer of ours.
Need = Literal[
    "other_launches",  # an engine that may be restarted and set otherwise
    "recorded",  # a pushed step whose prompts are known
    "older_models",
    "adapter",
    "other_weights",  # the two sides' folders differ
    "mixture_of_experts",
    "threads",  # more than one
]


class NotExercised(ProbeError):
    """The control ran, but what it is about did not happen; its outcome would say nothing."""


@dataclass(frozen=True, slots=True)
class Measurement:
    outcome: Outcome
    what: str  # "mean |Δ| with the prefix cache off, nats"
    value: float
    expected: str  # what healthy looks like: "0.031, the floor", "0: equal bits"
    evidence: tuple[Evidence, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "what": self.what,
            "value": self.value,
            "expected": self.expected,
            "evidence": [item.to_dict() for item in self.evidence],
        }
