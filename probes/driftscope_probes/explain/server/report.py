"""The report of an explanation from outside: what was changed, what it did, what stays unknown.

Verdicts, exit codes, Check and Gap are those of an explanation in process. Free of torch.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from driftscope_probes.explain.report import EXIT_CODES, Check, Gap, Verdict
from driftscope_probes.explain.server.request import ServerExplainRequest
from driftscope_probes.record import Record

KIND: Final = "explain"
DOOR: Final = "server"
Side = Literal["server", "trainer"]


class Precision(Record):
    """How exactly the server's JSON holds its log-probabilities."""

    values: int
    float32_fraction: float  # of values that are float32 numbers, digit for digit
    resolution: float  # nats; differences below it are unseen. 0: bits are compared
    sentence: str


class Tried(Record):
    """One change, or several together, and mean |Δ| in nats without and with."""

    name: str
    side: Side
    kind: str  # rounding, fault; of the server: setting
    says: str
    tokens: int
    abs_diff_mean_before: float
    abs_diff_mean_after: float
    z: float  # of the paired difference, positive where the gap fell
    needed: float  # what z must reach, for all that were tried
    effect: str  # lowers, raises, neither
    #: Of the server's own values with and without; None: the trainer was changed.
    own_sigma: float | None
    own_equal_fraction: float | None
    consistent: bool | None  # the server agrees with itself up to its floor


class NotTried(Record):
    name: str
    reason: str


class Best(Record):
    """The changes that together bring the gap down most."""

    changes: list[str]
    says: list[str]
    kinds: list[str]
    abs_diff_mean_before: float
    abs_diff_mean_after: float
    sigma_after: float
    at_floor: bool
    equal_fraction_after: float
    all_or_nothing: bool  # none of them helps alone
    as_good: list[str]  # other changes that bring it to the floor too


class Step(Record):
    length: int  # tokens of the cut texts
    sigma: float


class Coincides(Record):
    what: str
    tokens: int
    chance: float


class Truncation(Record):
    """From which position, or which length of the prompt, the sides part."""

    where: str  # position, length, everywhere, none
    at: int | None
    texts: int
    longest: int
    sigma_before: float
    sigma_from: float
    coincides: list[Coincides]
    steps: list[Step]
    sentence: str


class Floors(Record):
    """Sigma (nats on the logits) up to which a difference is no finding."""

    server_itself: float  # two identical requests
    server_itself_equal: float  # fraction of equal values of these
    rounding: float
    basis: str


class Unknown(Record):
    what: str
    why: str
    door: str  # what would tell


class ServerReport(Record):
    schema_version: str
    kind: str
    door: str
    created_at: str
    model: dict[str, Any]
    trainer_model: dict[str, Any] | None
    request: ServerExplainRequest
    verdict: Verdict
    equal: bool
    sentence: str
    remedy: str | None
    server: dict[str, Any]  # version, name, folder, longest sequence
    checks: list[Check]
    precision: Precision | None
    floors: Floors | None
    gap: Gap | None
    sigma: float | None  # of the gap
    server_settings: list[Tried]
    trainer_variants: list[Tried]
    not_tried: list[NotTried]
    best: Best | None
    truncation: Truncation | None
    unknown: list[Unknown]
    notes: list[str]
    environment: dict[str, Any]
    timing: dict[str, float]
    requests: int  # sent to the server

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]
