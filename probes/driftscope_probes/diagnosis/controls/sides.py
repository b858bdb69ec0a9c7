"""The two sides under diagnosis, and what a control may change about them. Free of torch.

In: nothing. Out: Sides, EngineChange, TrainerChange, Sampled, Gap, and the protocols of the two
sides, which run in processes of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.floor import Floor
from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.sessions.question import Event
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.models.adapter import Adapter
from driftscope_probes.trainer.question import NormCast
from driftscope_probes.trainer.settings import TrainerSettings

Tokens = tuple[tuple[int, ...], ...]
Logprobs = NDArray[np.float32]  # [tokens] nats, packed in the order of the sequences
#: Whose weights a side runs with; a number: that one of Sides.older_models.
WeightsOf = Literal["engine", "trainer"] | int
#: How the adapter gets into the engine; as_is: as the sides say.
EngineAdapter = Literal["as_is", "off", "merged-fp32", "merged-bf16", "unmerged"]
#: The launch of everything but the engine as it is: its process is another one anyway.
OTHER_LAUNCH: Final = 1
Overrides = tuple[tuple[str, Any], ...]  # settings by name; hashable, so that answers are kept


@dataclass(frozen=True, slots=True)
class Sides:
    """What runs on this machine in place of the user's engine and trainer."""

    engine_model: Path
    trainer_model: Path
    engine: EngineSettings
    trainer: TrainerSettings
    engine_dtype: Dtype
    trainer_mode: str  # dtypes.parse_mode
    sampling: SamplingSettings
    prompts: Tokens
    older_models: tuple[Path, ...] = ()  # checkpoints of earlier steps, newest first
    adapter: Adapter | None = None  # the trainer adds it
    engine_adapter: EngineAdapter = "off"


@dataclass(frozen=True, slots=True)
class EngineChange:
    """Everything not named stays as it is."""

    settings: Overrides = ()  # of EngineSettings
    dtype: Dtype | None = None
    rows: int | None = None  # requests sent together; None: all
    launch: int = 0  # another number: the engine's process is started anew
    replica: int = 0  # another number: a second engine beside the first one
    before: tuple[Event, ...] = ()
    warm: bool = False  # the same prompts once before, so that the prefix cache holds them
    weights: WeightsOf = "engine"
    adapter: EngineAdapter = "as_is"
    greedy: bool = False
    again: int = 0  # another number: the same engine is asked anew, nothing remembered


@dataclass(frozen=True, slots=True)
class TrainerChange:
    """Everything not named stays as it is."""

    settings: Overrides = ()  # of TrainerSettings
    mode: str | None = None
    quiet: bool = False  # draws nothing at random: dropout and the like are off
    weights: WeightsOf = "trainer"
    adapter: bool = True  # False: scores without it
    norm_epsilon: float | None = None  # of every norm
    norm_cast: NormCast | None = None  # whether norms cast before or after their weight
    weights_as: Dtype | None = None  # weights rounded to it before they are used
    packed: bool = False  # all sequences in one row, one behind the other
    #: Instead of the trainer: a plain float32 forward in evaluation mode, one sequence at a time,
    #: of the same weights. Tells which side errs; no other field but `weights` counts.
    reference: bool = False


AS_IS_ENGINE, AS_IS_TRAINER = EngineChange(), TrainerChange()


@dataclass(frozen=True, slots=True)
class Sequences:
    """Prompts and the responses to them, in order."""

    prompts: Tokens
    responses: Tokens

    @property
    def cu_seqlens(self) -> NDArray[np.int64]:
        """[sequences + 1] offsets into packed responses."""
        return np.cumsum([0, *map(len, self.responses)], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    sequences: Sequences
    logprobs: Logprobs
    cached_tokens: int | None = None  # prompt tokens that came from the prefix cache


class EngineSide(Protocol):
    def sample(self, change: EngineChange) -> Sampled:
        """Respond to the sides' prompts. Raises ProbeError."""
        ...

    def respond(self, prompts: Tokens, max_tokens: int, change: EngineChange) -> Sampled:
        """Respond to other prompts, greedily. Raises ProbeError."""
        ...

    def rescore(self, sequences: Sequences, change: EngineChange) -> Logprobs:
        """Read given responses as part of the prompt. Raises ProbeError."""
        ...

    def close(self) -> None: ...


class TrainerSide(Protocol):
    def score(self, sequences: Sequences, change: TrainerChange) -> Logprobs:
        """Teacher-forced, in training mode. Raises ProbeError."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Routed:
    """What an engine says of given responses, and the experts that every token took."""

    logprobs: Logprobs
    routes: tuple[NDArray[np.int16], ...]  # one [prompt + response, layers, used] per sequence


@runtime_checkable
class RecordsRoutes(Protocol):
    """An engine side whose routers can be watched."""

    def rescore_routed(self, sequences: Sequences, change: EngineChange) -> Routed:
        """As `rescore`, one sequence at a time. Raises ProbeError."""
        ...


@runtime_checkable
class ReplaysRoutes(Protocol):
    """A trainer side that can be made to take another's experts."""

    def score_routed(
        self, sequences: Sequences, routes: tuple[NDArray[np.int16], ...], change: TrainerChange
    ) -> Logprobs:
        """As `score`, one sequence at a time. Raises ProbeError."""
        ...


@dataclass(frozen=True, slots=True)
class Gap:
    """How far two scorings of the same tokens are apart."""

    tokens: int
    abs_mean: float  # nats, mean |Δ|
    largest: float  # nats
    sigma: float  # nats on the logits: sqrt(sum Δ² / sum (1 − p)²), as Floor.sigma
    equal: float  # fraction of equal bits


def gap_of(one: Logprobs, other: Logprobs) -> Gap:
    """`one` gives p. A value that is not finite counts as NON_FINITE nats."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        moved = np.abs(second - first)
    moved[~np.isfinite(moved)] = NON_FINITE
    room = np.expm1(np.minimum(np.nan_to_num(first, neginf=NON_FINITE_LOG), 0.0))
    total = float(np.sum(room * room))
    return Gap(
        tokens=moved.size,
        abs_mean=float(moved.mean()),
        largest=float(moved.max()),
        sigma=float(np.sqrt(np.sum(moved * moved) / max(total, LEAST_ROOM))),
        equal=float(np.mean(one.view(np.uint32) == other.view(np.uint32))),
    )


#: A difference with a NaN or an infinity in it: beyond any rounding, and still a number.
NON_FINITE = 100.0
NON_FINITE_LOG = -100.0
#: Sum of (1 − p)² below which every token was certain.
LEAST_ROOM = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A pushed step that can be run again: its tokens with their prompts, and both values."""

    sequences: Sequences
    rollout: Logprobs
    trainer: Logprobs


@dataclass(frozen=True, slots=True)
class Known:
    """What a bench has beside the two sides."""

    floor: Floor
    recorded: Recorded | None = None
    mixture_of_experts: bool = False
    hybrid: bool = False  # layers with a recurrent state
    restartable: bool = True  # False: a server that somebody else runs
    notes: tuple[str, ...] = field(default=())
