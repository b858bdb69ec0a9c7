"""Bench: the two sides at hand, asked by controls; what was asked before is not run again.

In: an engine side and a trainer side. Out: gaps between them, and whether a gap fell or two runs
agree. Free of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

from driftscope_probes.diagnosis.controls.measurement import (
    Measurement,
    Need,
    NotExercised,
    Outcome,
)
from driftscope_probes.diagnosis.controls.sides import (
    AS_IS_ENGINE,
    AS_IS_TRAINER,
    EngineChange,
    EngineSide,
    Gap,
    Known,
    Logprobs,
    RecordsRoutes,
    ReplaysRoutes,
    Routed,
    Sampled,
    Sequences,
    Sides,
    TrainerChange,
    TrainerSide,
    gap_of,
)
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO

T = TypeVar("T")
#: A gap has fallen where less than this of its sigma is left, though the floor is lower still: two
#: causes may be at work, or the floor a prior from another model.
FALLEN_TO: Final = 0.25
#: And none has fallen where more than this is left, at the floor or not: a gap that is at the floor
#: to begin with, as a healthy pair's, would else speak for every cause whose control is run.
NOT_FALLEN_FROM: Final = 0.4
#: Two runs of one side disagree where they are this far apart in units of the gap under diagnosis:
#: less cannot be its cause, since independent errors add as squares.
EXPLAINS_FROM: Final = 0.5


class Bench:
    def __init__(
        self, sides: Sides, engine: EngineSide, trainer: TrainerSide, known: Known
    ) -> None:
        self.sides, self.known = sides, known
        self._engine, self._trainer = engine, trainer
        self._kept: dict[Hashable, Any] = {}

    def sample(self, change: EngineChange = AS_IS_ENGINE) -> Sampled:
        """Responses to the prompts of the sides. Raises ProbeError."""
        return self._once(("sample", change), lambda: self._engine.sample(change))

    def respond(
        self, prompts: tuple[tuple[int, ...], ...], max_tokens: int, change: EngineChange
    ) -> Sampled:
        """Greedy responses to other prompts. Raises ProbeError."""
        asked = ("respond", prompts, max_tokens, change)
        return self._once(asked, lambda: self._engine.respond(prompts, max_tokens, change))

    def rescore(self, sequences: Sequences, change: EngineChange = AS_IS_ENGINE) -> Logprobs:
        """The engine's values of given responses, read as a prompt. Raises ProbeError."""
        asked = ("rescore", sequences, change)
        return self._once(asked, lambda: self._engine.rescore(sequences, change))

    def score(self, sequences: Sequences, change: TrainerChange = AS_IS_TRAINER) -> Logprobs:
        """The trainer's values of given responses. Raises ProbeError."""
        asked = ("score", sequences, change)
        return self._once(asked, lambda: self._trainer.score(sequences, change))

    def routed(self, sequences: Sequences, change: EngineChange = AS_IS_ENGINE) -> Routed:
        """The engine's values of given responses, with the experts it took. Raises ProbeError."""
        engine = self._engine
        if not isinstance(engine, RecordsRoutes):
            raise NotExercised("the engine's routers cannot be seen.", remedy="run it in process.")
        asked = ("routed", sequences, change)
        return self._once(asked, lambda: engine.rescore_routed(sequences, change))

    def score_routed(
        self, sequences: Sequences, routed: Routed, change: TrainerChange = AS_IS_TRAINER
    ) -> Logprobs:
        """The trainer's values where every token takes the engine's experts. Raises ProbeError."""
        trainer = self._trainer
        if not isinstance(trainer, ReplaysRoutes):
            raise NotExercised("the trainer replays no routes.", remedy="leave the control out.")
        return trainer.score_routed(sequences, routed.routes, change)

    def gap(
        self, engine: EngineChange = AS_IS_ENGINE, trainer: TrainerChange = AS_IS_TRAINER
    ) -> Gap:
        """Between the engine's own values of what it samples and the trainer's."""
        sampled = self.sample(engine)
        return gap_of(sampled.logprobs, self.score(sampled.sequences, trainer))

    @property
    def base(self) -> Gap:
        """The gap under diagnosis, as the two sides make it here."""
        return self.gap()

    @property
    def floor_sigma(self) -> float:
        return self.known.floor.sigma

    def fallen(self, gap: Gap, what: str) -> Measurement:
        """clean: with the change, three quarters of the difference are gone, or most of it and the
        rest is at the floor. Of a healthy pair none is.
        """
        at_floor = min(AT_FLOOR_UP_TO * self.floor_sigma, NOT_FALLEN_FROM * self.base.sigma)
        bound = max(at_floor, FALLEN_TO * self.base.sigma)
        return self._measured("clean" if gap.sigma <= bound else "dirty", gap, what, bound)

    def agree(self, gap: Gap, what: str) -> Measurement:
        """clean: two runs of one side are too close to make the gap under diagnosis."""
        bound = max(AT_FLOOR_UP_TO * self.floor_sigma, EXPLAINS_FROM * self.base.sigma)
        return self._measured("clean" if gap.sigma <= bound else "dirty", gap, what, bound)

    def agree_without_floor(self, gap: Gap, what: str) -> Measurement:
        """As `agree`, of runs that give equal bits when healthy: rounding is no excuse."""
        bound = EXPLAINS_FROM * self.base.sigma
        return self._measured("clean" if gap.sigma <= bound else "dirty", gap, what, bound)

    def _measured(self, outcome: Outcome, gap: Gap, what: str, bound: float) -> Measurement:
        return Measurement(outcome, f"sigma, {what}", gap.sigma, f"up to {bound:.2g}")

    @property
    def offers(self) -> frozenset[Need]:
        """What controls may need, as far as it is here."""
        sides, known = self.sides, self.known
        there: dict[Need, bool] = {
            "other_launches": known.restartable,
            "recorded": known.recorded is not None,
            "older_models": bool(sides.older_models),
            "adapter": sides.adapter is not None,
            "other_weights": sides.engine_model != sides.trainer_model or sides.adapter is not None,
            "mixture_of_experts": known.mixture_of_experts,
            "threads": (sides.engine.threads or 0) != 1,
        }
        return frozenset(need for need, here in there.items() if here)

    def close(self) -> None:
        self._engine.close()
        self._trainer.close()

    def _once(self, asked: Hashable, run: Callable[[], T]) -> T:
        if asked not in self._kept:
            self._kept[asked] = run()
        kept: T = self._kept[asked]
        return kept
