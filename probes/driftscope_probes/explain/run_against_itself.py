"""Child process: one engine, its rows alone and together, compared op by op on equal inputs.

    python -m driftscope_probes.explain.run_against_itself WORKDIR

request.json: model_path, setup (of a session), prompts (ids). The result is a BatchExplanation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import Parameters
from driftscope_kernels.compare_ops.reasons import REASONS
from driftscope_probes.children import child_main
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.sessions.question import Setup
from driftscope_probes.engines.settings import SamplingSettings
from driftscope_probes.explain.batch_explanation import NEW_TOKENS, BatchExplanation, BatchOp
from driftscope_probes.explain.comparison import differences, run_passes
from driftscope_probes.explain.explanation import first_of
from driftscope_probes.explain.groups import Examined, Group, groups_of
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sides.base import Received, SideName
from driftscope_probes.explain.sides.vllm_side import VllmSide
from driftscope_probes.explain.sites import KIND_LABELS, Site
from driftscope_probes.explain.taps import Tap
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_probes.prompts import PromptBatch


class Submitted:
    """The engine as a side of its own: its rows one after another, or all at once."""

    def __init__(self, engine: VllmSide, name: SideName, *, alone: bool) -> None:
        self._engine, self.name, self._alone = engine, name, alone

    @property
    def dtype(self) -> torch.dtype:
        return self._engine.dtype

    def run(self, sample: Sample, tap: Tap | None) -> NDArray[np.float32]:
        return self._engine.run(sample, tap, alone=self._alone)

    def logprobs(self, logits: Tensor) -> Tensor:
        return self._engine.logprobs(logits)

    def parameters(self, site: Site) -> Parameters | None:
        return self._engine.parameters(site)

    def facts(self) -> Mapping[str, Any]:
        return self._engine.facts()

    @property
    def received(self) -> Received:
        return self._engine.received

    @property
    def uncovered(self) -> list[str]:
        return self._engine.uncovered


def run(request: dict[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    setup = Setup.from_dict(request["setup"])
    progress(Progress("loading the engine", 0.0))
    task = RolloutTask(
        model_path=Path(request["model_path"]),
        model_name=Path(request["model_path"]).name,
        dtype=setup.dtype,
        prompts=PromptBatch.from_lists(request["prompts"]),
        sampling=SamplingSettings(max_tokens=NEW_TOKENS, temperature=0.0),
        engine=setup.engine.model_copy(update={"prefix_caching": False}),
    )
    engine = VllmSide(task, "decode")
    started = time.perf_counter()
    progress(Progress("running rows alone and together", 0.5))
    alone = Submitted(engine, "engine", alone=True)
    together = Submitted(engine, "trainer", alone=False)
    sample = engine.draw()
    with run_passes(alone, together, sample, workdir) as passes:
        found = differences(passes)
        examined = Examined(passes, engine.parameters, engine.parameters)
        groups = groups_of(examined, found)
        first = first_of(sample, [one for group in groups for one in group.differences])
        equal = not groups and bool((passes.engine_logprobs == passes.trainer_logprobs).all())
    return BatchExplanation(
        sentence=_sentence(groups, equal),
        equal=equal,
        first=first,
        ops=[_op(group) for group in groups],
        compared=len(found),
        seconds=time.perf_counter() - started,
    ).to_dict()


def _op(group: Group) -> BatchOp:
    sites = [one.site for one in group.differences]
    return BatchOp(
        op=group.kind,
        label=KIND_LABELS[group.kind],
        sites=list(dict.fromkeys(site.name for site in sites)),
        layers=sorted({site.layer for site in sites if site.layer is not None}),
        equal_fraction=group.forward.fraction,
        reason="reduction_order" if _of_batch(group) else group.reason,
        why=_why(group),
    )


def _of_batch(group: Group) -> bool:
    """One engine has one dtype and one set of weights: within rounding its order alone differs."""
    return group.judged is not None and group.fault is None


def _why(group: Group) -> str:
    label = KIND_LABELS[group.kind]
    if not _of_batch(group):
        return f"{label} differs by more than rounding between rows alone and rows together."
    alone, together = group.engine, group.trainer
    said = (
        f"{label} differs within rounding: its kernel adds otherwise for rows together than for a "
        "row alone"
    )
    if alone is not None and together is not None and alone.variant.name != together.variant.name:
        said += f" (alone {alone.variant.says}; together {together.variant.says})"
    return f"{said}."


def _sentence(groups: list[Group], equal: bool) -> str:
    if equal:
        return "Every op gives the same bits to rows alone and to rows together."
    if not groups:
        return (
            "Every op gives the same bits on equal inputs; the difference is in an op that is not "
            "seen."
        )
    order = REASONS["reduction_order"]
    named = ", ".join(
        f"{KIND_LABELS[group.kind]} ({order if _of_batch(group) else REASONS[group.reason]})"
        for group in groups
    )
    return f"On equal inputs these ops give a row other bits in a batch than alone: {named}."


if __name__ == "__main__":
    child_main(run)
