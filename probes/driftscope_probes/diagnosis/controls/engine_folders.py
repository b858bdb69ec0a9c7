"""Which folder the engine loads for a change, and the adapter beside it. Free of torch.

In: Sides and an EngineChange. Out: EngineFolder; a merged folder is written when it is first asked
for, and removed with the bench.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from driftscope_probes.diagnosis.controls.sides import EngineAdapter, EngineChange, Sides
from driftscope_probes.errors import RequestError
from driftscope_probes.models.merge import MergeDtype, merge

MERGED: Final[dict[EngineAdapter, MergeDtype]] = {"merged-fp32": "fp32", "merged-bf16": "bf16"}


@dataclass(frozen=True, slots=True)
class EngineFolder:
    model: Path
    adapter: Path | None = None  # that vLLM's own LoRA serves beside it


class EngineFolders:
    """`workdir`: a folder of its own, which may not exist yet."""

    def __init__(self, sides: Sides, workdir: Path) -> None:
        self._sides, self._workdir = sides, workdir

    def of(self, change: EngineChange) -> EngineFolder:
        """Raises RequestError, ModelError."""
        model, how = self._model(change), self._how(change)
        adapter = self._sides.adapter
        if how == "off":
            return EngineFolder(model)
        if adapter is None:
            raise RequestError(
                f"the engine was asked to run with an adapter ({how}), but none is given.",
                remedy="give the folder of the trainer's LoRA adapter.",
            )
        if how in MERGED:
            target = self._workdir / f"{how}-{change.weights}"
            made = target if target.exists() else merge(model, adapter, MERGED[how], target)
            return EngineFolder(made)
        if self._sides.engine.kind != "vllm":
            raise RequestError(
                f"an adapter beside the weights is vLLM's own LoRA, the engine is "
                f"{self._sides.engine.kind}.",
                remedy="run the control with engine vllm, or the one that merges in float32.",
            )
        return EngineFolder(model, adapter.path)

    def _model(self, change: EngineChange) -> Path:
        weights = change.weights
        if weights == "engine":
            return self._sides.engine_model
        if weights == "trainer":
            return self._sides.trainer_model
        if not 0 <= weights < len(self._sides.older_models):
            raise RequestError(
                f"older weights {weights} were asked for; {len(self._sides.older_models)} folders "
                "are known.",
                remedy="name the folders of earlier checkpoints, the newest first.",
            )
        return self._sides.older_models[weights]

    def _how(self, change: EngineChange) -> EngineAdapter:
        """The trainer's weights are base and adapter, kept apart; an older checkpoint is whole."""
        sides = self._sides
        if change.adapter != "as_is":
            return change.adapter
        if change.weights == "engine":
            return "off" if sides.engine_adapter == "as_is" else sides.engine_adapter
        if change.weights == "trainer" and sides.adapter is not None:
            return "unmerged" if sides.engine.kind == "vllm" else "merged-fp32"
        return "off"

    def close(self) -> None:
        shutil.rmtree(self._workdir, ignore_errors=True)
