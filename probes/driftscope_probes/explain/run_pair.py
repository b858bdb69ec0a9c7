"""Child process with both sides alive: the engine, the trainer, and everything compared.

    python -m driftscope_probes.explain.run_pair WORKDIR

request.json: request (ExplainRequest), model_path, trainer_path, prompts (ids). The result is the
report's parts, without what the parent knows: `Parts`.
"""

from __future__ import annotations

import os
import resource
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from driftscope_probes.children import child_main
from driftscope_probes.device.versions import check_versions
from driftscope_probes.dtypes import parse_mode
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.explain.alignment import NotComparable, Part, align
from driftscope_probes.explain.backward import backward_of
from driftscope_probes.explain.comparison import Passes, differences, run_passes
from driftscope_probes.explain.explanation import (
    compared_of,
    first_of,
    gap_of,
    op_of,
    unnamed_places,
    verdict_of,
    verify,
)
from driftscope_probes.explain.full_vocabulary import full_vocabulary_of
from driftscope_probes.explain.groups import Examined, groups_of
from driftscope_probes.explain.growth import growth_of
from driftscope_probes.explain.known_parameters import KnownParameters
from driftscope_probes.explain.report import Alignment, Gap, Parts
from driftscope_probes.explain.request import ExplainRequest
from driftscope_probes.explain.sides.base import EngineSide, Side
from driftscope_probes.explain.sites import sites_of, uncovered_of
from driftscope_probes.explain.store import Store
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trainer.run_trainer import ENVIRONMENT

#: Fractions of the whole at which steps begin, as a small model takes them.
LOADED: Final = 0.35
PASSED: Final = 0.55
ALIGNED: Final = 0.65
EXAMINED: Final = 0.8
VERIFIED: Final = 0.95


def run(request: dict[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    asked = ExplainRequest(**request["request"])
    os.environ.update(ENVIRONMENT)
    progress(Progress("importing vLLM and transformers", 0.0))
    started = time.perf_counter()
    engine, trainer = load_sides(
        asked,
        Path(request["model_path"]),
        Path(request["trainer_path"]),
        PromptBatch.from_lists(request["prompts"]),
        progress,
    )
    loaded_s = time.perf_counter() - started
    loaded_mib = _most_memory_mib()
    parts = compare_sides(asked, engine, trainer, workdir, progress)
    # Of the process that holds both sides.
    memory = {"memory_mib_when_loaded": loaded_mib, "most_memory_mib": _most_memory_mib()}
    found = {
        "timing": {"load_s": loaded_s, **parts.timing},
        "ran": {side: {**values, **memory} for side, values in parts.ran.items()},
    }
    return parts.model_copy(update=found).to_dict()


def _most_memory_mib() -> int:
    """Of this process so far, libraries included: the kernel counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def load_sides(
    asked: ExplainRequest, model: Path, base: Path, prompts: PromptBatch, progress: ProgressSink
) -> tuple[EngineSide, Side]:
    """The engine, which draws, and the trainer. Raises ProbeError."""
    check_versions("vllm")
    # Imported late: they take seconds, and read the environment.
    from driftscope_probes.explain.sides.hf_side import HfSide
    from driftscope_probes.explain.sides.vllm_side import VllmSide
    from driftscope_probes.trainer.load import load_model

    progress(Progress("loading the engine", LOADED / 2))
    task = RolloutTask(
        model_path=model,
        model_name=model.name,
        dtype=asked.engine_dtype,
        prompts=prompts,
        sampling=asked.sampling,
        engine=asked.engine,
    )
    engine = VllmSide(task, asked.phase)
    progress(Progress("loading the trainer", LOADED * 0.8))
    mode, settings = parse_mode(asked.trainer_dtype), asked.trainer.settings
    loaded = load_model(str(base), base.name, mode.weights, settings)
    return engine, HfSide(loaded, mode, settings)


def compare_sides(
    asked: ExplainRequest,
    engine: EngineSide,
    trainer: Side,
    scratch: Path,
    progress: ProgressSink,
) -> Parts:
    """Raises ProbeError; sides that cannot be compared are a verdict."""
    started = time.perf_counter()

    def tell(at: float, stage: str, detail: str = "") -> None:
        progress(Progress(stage, at, detail))

    tell(LOADED, "sampling")
    sample = engine.draw()
    with run_passes(
        engine, trainer, sample, scratch, partial(tell, LOADED, "running the ops")
    ) as passes:
        gap = gap_of(passes.engine_logprobs, passes.trainer_logprobs)
        ran = {"engine": dict(engine.facts()), "trainer": dict(trainer.facts())}
        uncovered = [
            *engine.uncovered,
            *trainer.uncovered,
            *unnamed_places(passes),
            *uncovered_of(passes.engine.places, passes.sites),
        ]
        tell(PASSED, "comparing weights and numbers")
        try:
            alignment = _align(passes, engine, trainer)
        except NotComparable as error:
            return _not_comparable(error, gap, ran, time.perf_counter() - started)
        aligned_s = time.perf_counter() - started
        known = KnownParameters(engine, trainer, alignment)
        examined = Examined(passes, known.of_engine, trainer.parameters)
        found = differences(passes)
        groups = groups_of(examined, found, partial(tell, ALIGNED, "looking for the reason of"))
        replays = None
        if groups:
            replay = partial(tell, EXAMINED, "verifying")
            replays = verify(examined, groups, engine, trainer, scratch, replay)
        tell(VERIFIED, "following the difference through the layers")
        swaps = [None] * len(groups) if replays is None else replays.alone
        verdict = verdict_of(groups, gap, replays)
        faulty = [group for group in groups if group.fault is not None]
        whole = full_vocabulary_of(passes, engine, trainer) if asked.full_vocab else None
        gradients = [backward_of(examined, group) if asked.backward else None for group in groups]
        return Parts(
            verdict=verdict,
            gap=gap,
            alignment=alignment,
            first=first_of(
                sample,
                sorted(
                    [one for group in faulty or groups for one in group.differences],
                    key=found.index,
                ),
            ),
            ops=[
                op_of(sample, group, swap, gradient)
                for group, swap, gradient in zip(groups, swaps, gradients, strict=True)
            ],
            compared=compared_of(found, groups),
            growth=growth_of(passes, trainer),
            verified=None if replays is None else replays.verified,
            full_vocabulary=whole,
            uncovered=list(dict.fromkeys(uncovered)),
            ran=ran,
            notes=[],
            timing={
                "alignment_s": aligned_s,
                "comparison_s": time.perf_counter() - started,
            },
        )


def _align(passes: Passes, engine: EngineSide, trainer: Side) -> Alignment:
    def part(side: Side, store: Store) -> Part:
        sites = sites_of(store.places)
        return Part(side.name, side.dtype, sites, side.parameters, side.received)

    return align(passes.sample, part(engine, passes.engine), part(trainer, passes.trainer))


def _not_comparable(
    error: NotComparable, gap: Gap, ran: dict[str, dict[str, Any]], seconds: float
) -> Parts:
    return Parts(
        verdict="not_comparable",
        gap=gap,
        alignment=Alignment(checks=[], weights=[], weights_compared=0, weights_unknown=[]),
        first=None,
        ops=[],
        compared=[],
        growth=[],
        verified=None,
        full_vocabulary=None,
        uncovered=[],
        ran=ran,
        notes=[error.message, error.remedy],
        timing={"comparison_s": seconds},
    )


if __name__ == "__main__":
    child_main(run)
