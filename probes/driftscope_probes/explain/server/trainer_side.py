"""Our trainer beside a server: one child process, asked in many ways; answers are kept.

In: a request, a folder, a Way. Out: float32 log-probabilities [tokens]. Free of torch.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.asked_child import AskedChild
from driftscope_probes.crashes import explain_trainer_crash
from driftscope_probes.diagnosis.controls.live_trainer import MODULE, NOT_MEASURED
from driftscope_probes.diagnosis.controls.sides import Sequences
from driftscope_probes.dtypes import parse_mode
from driftscope_probes.errors import ProbeError
from driftscope_probes.explain.server.changed_folder import ChangedFolders
from driftscope_probes.explain.server.request import ServerExplainRequest
from driftscope_probes.explain.server.variants import Variant, Way, summed
from driftscope_probes.trainer.question import Forward, Question, from_bits
from driftscope_probes.trainer.settings import TrainerSettings

#: Nothing changed, and nothing drawn at random: what the floor is measured with.
QUIET: Final = Way(quiet=True)


class ServerTrainer:
    def __init__(self, request: ServerExplainRequest, folder: Path, workdir: Path) -> None:
        self._request, self._folder = request, folder
        self._folders = ChangedFolders(workdir / "folders")
        self._child_folder = workdir / "trainer"
        self._children = 0
        self._child: AskedChild | None = None
        self._kept: dict[Hashable, NDArray[np.float32]] = {}
        self.refused: dict[str, str] = {}  # name of a variant → why it could not run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.close()

    def tried(
        self, sequences: Sequences, variants: Iterable[Variant]
    ) -> NDArray[np.float32] | None:
        """None: the model has nothing that could be changed so, see `refused`."""
        chosen = tuple(variants)
        names = " + ".join(variant.name for variant in chosen)
        if any(variant.name in self.refused for variant in chosen):
            return None
        try:
            return self.score(sequences, summed(chosen))
        except ProbeError as error:
            if not chosen:
                raise
            self.refused[names] = error.message
            return None

    def score(self, sequences: Sequences, way: Way = Way()) -> NDArray[np.float32]:  # noqa: B008
        """Raises ProbeError."""
        asked = (sequences, way.mode(self._request.trainer_dtype), repr(way))
        if asked not in self._kept:
            question = Question(
                self._forward(way), sequences.prompts, sequences.responses, self._rollout(way)
            )
            reply = self._started().ask(question.to_dict())
            self._kept[asked] = from_bits(list(reply["bits"]))
        return self._kept[asked]

    def _forward(self, way: Way) -> Forward:
        settings: dict[str, Any] = {**self._request.trainer.model_dump(), **NOT_MEASURED}
        settings["attention"] = way.attention or settings["attention"]
        settings["kernels"] = way.kernels or settings["kernels"]
        return Forward(
            model=self._folders.of(way.weights or self._folder, way.config),
            mode=parse_mode(way.mode(self._request.trainer_dtype)).name,
            settings=TrainerSettings(**settings),
            quiet=way.quiet,
            norm_epsilon=way.norm_epsilon,
            norm_cast=way.norm_cast,
            weights_as=way.weights_as,
        )

    def _rollout(self, way: Way) -> dict[str, Any]:
        mode = "processed_logprobs" if way.tempered else self._request.logprobs_mode
        return {"logprobs_mode": mode, "temperature": self._request.sampling.temperature}

    def _started(self) -> AskedChild:
        if self._child is None or not self._child.alive:
            if self._child is not None:
                self._child.close()
            self._children += 1
            self._child = AskedChild(
                MODULE,
                {},
                self._child_folder / str(self._children),
                explain_crash=explain_trainer_crash,
                environment={},
            )
        return self._child
