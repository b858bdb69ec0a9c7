"""The report of an explanation: which ops differ, where first, why, what follows. Free of torch.

Layer `null` stands for what is before the first or behind the last layer. Tokens and features are
counted from 0; a token is a row of the sample, `sequence` and `position` say which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from driftscope_probes.explain.request import ExplainRequest
from driftscope_probes.record import Record

#: `equal`: every op and every log-probability bitwise. `rounding`: all that differs does by
#: rounding. `fault`: an op differs by more. `unexplained`: an op differs, and no variant equals it.
#: `not_comparable`: the sides were not given the same thing.
Verdict = Literal["equal", "rounding", "fault", "unexplained", "not_comparable"]
VERDICTS: Final[Mapping[Verdict, str]] = {
    "equal": "bitwise equal",
    "rounding": "rounding",
    "fault": "an op is at fault",
    "unexplained": "not explained",
    "not_comparable": "not comparable",
}
EXIT_CODES: Final[Mapping[Verdict, int]] = {
    "equal": 0,
    "rounding": 1,
    "fault": 1,
    "unexplained": 1,
    "not_comparable": 2,
}
Closer = Literal["engine", "trainer", "equal"]
#: What an op was given in two runs as they are. `unknown`: not all of it was captured.
InputEvidence = Literal["equal", "different", "unknown"]


class First(Record):
    """The first element that differs although both ops had equal inputs."""

    layer: int | None
    op: str  # kind of op
    site: str  # which one of the layer: q_proj, mlp_norm
    token: int  # row of the sample
    sequence: int
    position: int
    feature: int
    engine: float | None  # None: not finite
    trainer: float | None
    ulp: int | None  # None where one side is not a number
    inputs: InputEvidence = "equal"  # other than equal: of dumps alone


class Way(Record):
    """How one side computes an op, as far as a named variant equals it."""

    variant: str | None  # None: none does
    says: str | None
    code: str | None  # a line of torch that does it
    equal: float  # fraction of elements, of the nearest variant where none equals it
    nearest: str | None  # name of that


class Tree(Record):
    """In which order one side adds, read from outside."""

    side: str
    text: str  # for people
    hash: str


class Swap(Record):
    """Mean |Δ| with the op replaced on one side, in nats."""

    abs_diff_mean_before: float
    abs_diff_mean_after: float


class Errors(Record):
    """Against a float64 reference of the op on the same inputs, root mean square, in units of what
    rounding alone explains."""

    engine: float
    trainer: float


class Backward(Record):
    """The gradient of the trainer's op with respect to its inputs, and to the weight of norms and
    linear layers, for a fixed random gradient from behind."""

    equal_fraction: float  # with the gradient through the engine's way
    max_ulp: int
    error: float  # against float64, relative
    engine_error: float | None = None  # of the engine's way, likewise
    #: Name of the way; of the nearest that has a gradient where its own has none.
    engine_way: str | None = None
    trainer_way: str | None = None


class Op(Record):
    """One kind of op with one reason, over all layers where it differs on equal inputs."""

    op: str
    label: str
    sites: list[str]
    layers: list[int]  # empty: outside layers
    equal_fraction: float
    max_ulp: int
    elements: int
    reverse_equal_fraction: float | None  # the engine's op on the trainer's inputs
    first: First | None
    reason: str  # a key of compare_ops.variant.REASONS
    why: str  # a sentence
    engine: Way
    trainer: Way
    trees: list[Tree]
    errors: Errors | None  # None: weights or numbers of the op are not at hand
    closer_to_float64: Closer | None
    beyond_tolerance: float | None  # fraction of elements farther apart than rounding explains
    backward: Backward | None
    swap: Swap | None  # with this op alone replaced


class Compared(Record):
    """A site, whether it differs or not.

    Two dumps hold each run as it was: there an op is compared on those tokens whose inputs happen
    to be equal, and is None where there are none.
    """

    layer: int | None
    op: str
    site: str
    equal_fraction: float | None
    max_ulp: int | None
    reverse_equal_fraction: float | None
    own_inputs_equal_fraction: float | None  # in the two runs as they are
    beyond_tolerance: float | None
    inputs: InputEvidence = "equal"  # in the two runs as they are; given for dumps alone
    tokens_with_equal_inputs: int | None = None  # likewise


class Growth(Record):
    layer: int | None  # None: behind the last layer
    relative_difference: float  # of the residual stream in the two runs as they are
    amplification: float | None  # to the layer before
    abs_diff_mean_after: float | None  # nats left where both streams are made equal here


class Verified(Record):
    """All ops that are named, replaced together in a replay."""

    replaced: list[str]  # ops
    on: str  # the side that took the other's way
    abs_diff_mean_before: float  # nats
    abs_diff_mean_after: float
    predicted: float
    abs_diff_max_after: float
    holds: bool
    all_or_nothing: bool  # each alone leaves most of the gap
    sentence: str


class Check(Record):
    """One thing that has to be the same before ops can be compared."""

    what: str
    equal: bool
    says: str


class WeightDifference(Record):
    tensor: str
    equal_fraction: float
    max_abs: float
    says: str


class Alignment(Record):
    checks: list[Check]
    weights: list[WeightDifference]  # those that differ
    weights_compared: int
    weights_unknown: list[str]


class FullVocabulary(Record):
    """Whole distributions, over tokens where both sides' logits are at hand."""

    tokens: int
    vocabulary: int
    equal_tokens: float  # fraction whose log-probabilities are equal on the whole vocabulary
    equal_sampled: float  # on the sampled token alone
    kl_engine_trainer_mean: float  # nats
    kl_engine_trainer_max: float
    kl_trainer_engine_mean: float
    kl_trainer_engine_max: float
    total_variation_mean: float
    total_variation_max: float
    top_k: int
    top_k_overlap: float
    sentence: str


class Gap(Record):
    """Between the two runs as they are, in nats."""

    tokens: int
    abs_diff_mean: float
    abs_diff_max: float
    equal_fraction: float


class Parts(Record):
    """What the two live sides showed: the report without what is known outside their process."""

    verdict: Verdict
    gap: Gap | None
    alignment: Alignment
    first: First | None  # at a fault where there is one
    ops: list[Op]  # those that differ on equal inputs, in the order in which they run
    compared: list[Compared]
    growth: list[Growth]
    verified: Verified | None
    full_vocabulary: FullVocabulary | None
    uncovered: list[str]
    ran: dict[str, dict[str, Any]]  # by side: what really ran, read back
    notes: list[str]
    timing: dict[str, float]
    lint: dict[str, Any] | None = None  # a LintReport


class ExplainReport(Parts):
    schema_version: str
    kind: str
    created_at: str
    model: dict[str, Any]
    trainer_model: dict[str, Any] | None
    request: ExplainRequest
    equal: bool
    sentence: str
    remedy: str | None
    environment: dict[str, Any]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]
