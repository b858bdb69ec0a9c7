"""LiveTrainer: the trainer side of a bench, in a process of its own. Free of torch.

In: the sides, and what a control changes. Out: log-probabilities by the product's own trainer; its
process keeps models between questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.asked_child import AskedChild
from driftscope_probes.crashes import explain_trainer_crash
from driftscope_probes.diagnosis.controls.sides import (
    Logprobs,
    Sequences,
    Sides,
    TrainerChange,
    WeightsOf,
)
from driftscope_probes.models.adapter import Adapter
from driftscope_probes.trainer.question import Forward, Question, from_bits
from driftscope_probes.trainer.settings import TrainerSettings

MODULE: Final = "driftscope_probes.trainer.run_session"
#: Neither changes a log-probability of the forward.
NOT_MEASURED: Final = {"backward": False, "headroom": False}


class Asked(Protocol):
    """Who answers a session's questions."""

    @property
    def alive(self) -> bool: ...

    def ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]: ...

    def close(self) -> None: ...


class LiveTrainer:
    """`module`: a child whose desk is another trainer, `trainer/run_session.py` says how."""

    def __init__(
        self,
        sides: Sides,
        workdir: Path,
        *,
        module: str = MODULE,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._sides, self._workdir = sides, workdir
        self._module, self._environment = module, environment or {}
        self._child: Asked | None = None
        self._processes = 0

    def score(self, sequences: Sequences, change: TrainerChange) -> Logprobs:
        """Raises ProbeError, pydantic's ValidationError for a setting that does not exist."""
        return self._asked(sequences, change, None)

    def score_routed(
        self, sequences: Sequences, routes: tuple[NDArray[np.int16], ...], change: TrainerChange
    ) -> Logprobs:
        """As `score`, one sequence at a time, every token to these experts. Raises ProbeError."""
        return self._asked(sequences, change, routes)

    def _asked(
        self,
        sequences: Sequences,
        change: TrainerChange,
        routes: tuple[NDArray[np.int16], ...] | None,
    ) -> Logprobs:
        question = Question(
            self._forward(change, len(sequences.prompts)),
            sequences.prompts,
            sequences.responses,
            self._rollout(),
            routes,
        )
        return from_bits(list(self._started().ask(question.to_dict())["bits"]))

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
        self._child = None

    def start(self) -> Asked:
        """A session that has not been asked yet. Raises ProbeError."""
        self._processes += 1
        return AskedChild(
            self._module,
            {},
            self._workdir / f"trainer-{self._processes}",
            explain_crash=explain_trainer_crash,
            environment=self._environment,
        )

    def _started(self) -> Asked:
        if self._child is None or not self._child.alive:
            self.close()
            self._child = self.start()
        return self._child

    def _forward(self, change: TrainerChange, sequences: int) -> Forward:
        overrides: dict[str, Any] = {**NOT_MEASURED, **dict(change.settings)}
        if change.packed:
            overrides |= {"batching": "packed", "micro_batch": max(sequences, 1)}
        settings = {**self._sides.trainer.model_dump(), **overrides}
        return Forward(
            model=self._folder(change.weights),
            mode=change.mode or self._sides.trainer_mode,
            settings=TrainerSettings.model_validate(settings),
            adapter=self._adapter(change),
            quiet=change.quiet,
            norm_epsilon=change.norm_epsilon,
            norm_cast=change.norm_cast,
            weights_as=change.weights_as,
            reference=change.reference,
        )

    def _folder(self, weights: WeightsOf) -> Path:
        if weights == "trainer":
            return self._sides.trainer_model
        if weights == "engine":
            return self._sides.engine_model
        return self._sides.older_models[weights]

    def _adapter(self, change: TrainerChange) -> Adapter | None:
        """The trainer's weights are its folder's with the adapter, the engine's as it adds it; a
        checkpoint of an earlier step is whole.
        """
        sides = self._sides
        if not change.adapter and not change.reference:
            return None
        if change.weights == "trainer":
            return sides.adapter
        added = change.weights == "engine" and sides.engine_adapter not in ("off", "as_is")
        return sides.adapter if added else None

    def _rollout(self) -> dict[str, Any]:
        return {
            "logprobs_mode": self._sides.engine.logprobs_mode,
            "temperature": self._sides.sampling.temperature,
        }
