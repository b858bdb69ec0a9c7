"""Child process that does a place's work: sample or take the tokens, score them on both sides.

    python -m driftscope_probes.matrix.run_place WORKDIR

request.json: a Work. The answer lies in answer.safetensors; the result is empty. It runs with the
interpreter and the variables of the place, so that every process below it has them too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.asked_child import AskedChild
from driftscope_probes.children import child_main
from driftscope_probes.crashes import explain_trainer_crash
from driftscope_probes.device.environment import night_environment
from driftscope_probes.engines.sessions import question as engine
from driftscope_probes.engines.sessions.runners import EngineRunner
from driftscope_probes.engines.settings import available_cores
from driftscope_probes.errors import ModelError
from driftscope_probes.matrix.places.local import ANSWER_FILE
from driftscope_probes.matrix.work import Answer, Scores, Subject, Work, digest_of, pack
from driftscope_probes.models.fetch import resolve
from driftscope_probes.models.folder import ModelFolder
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_probes.trainer.question import Forward, Question, from_bits
from driftscope_probes.trainer.settings import TrainerSettings

TRAINER_MODULE: Final = "driftscope_probes.trainer.run_session"
#: Of what the log-probabilities are: the model's own, at the temperature of the samples.
ROLLOUT: Final = {"logprobs_mode": "raw_logprobs", "temperature": 1.0}
#: Fraction of the work at which the engine's part ends; its start takes longest.
ENGINE_ENDS: Final = 0.6
#: A whole second pass: the first one of a process may differ from those that follow.
RUNS: Final = 2

Tokens = tuple[tuple[int, ...], ...]


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    work = Work.from_dict(request)
    answer = answer_to(work, workdir, progress)
    (workdir / ANSWER_FILE).write_bytes(pack(answer))
    return {}


def answer_to(work: Work, workdir: Path, progress: ProgressSink) -> Answer:
    """Raises ProbeError."""
    started = time.monotonic()
    progress(Progress("finding the model", 0.0))
    model = _model(work)
    threads = work.engine.threads or available_cores()
    # Both sides set it for their own processes; a cluster's worker may have another value.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    engine_settings = work.engine.model_copy(update={"threads": threads})
    responses, scores, settings = _engine_scores(
        work, model, engine_settings, workdir / "engine", progress
    )
    engine_s = time.monotonic() - started
    scores |= _trainer_scores(work, model, responses, threads, workdir / "trainer", progress)
    found, notes = night_environment()
    facts = {
        "environment": found,
        "notes": list(notes),
        "settings": settings,
        "timing": {"engine_s": engine_s, "total_s": time.monotonic() - started},
    }
    return Answer(np.array(responses, np.int32), scores, facts)


def _model(work: Work) -> ModelFolder:
    """Raises ModelError where the place has other weights."""
    model = resolve(work.model)
    found = digest_of(model)
    if found != work.fingerprint:
        raise ModelError(
            f"{Path(work.model).name} has other weights or another configuration here: "
            f"{found[:32]}…, not {work.fingerprint[:32]}….",
            remedy="bring the same files to every place.",
        )
    return model


def _engine_scores(
    work: Work, model: ModelFolder, settings: Any, workdir: Path, progress: ProgressSink
) -> tuple[Tokens, dict[Subject, Scores], dict[str, Any]]:
    runner = EngineRunner(model.path, workdir)
    responses = work.responses
    scores: dict[Subject, Scores] = {}
    longest = max(map(len, work.prompts))
    try:
        for index, dtype in enumerate(work.engine_dtypes):
            at = ENGINE_ENDS * index / len(work.engine_dtypes)
            progress(Progress(f"engine {dtype}", at))
            # One token more than is generated: scoring asks for one after the response.
            setup = engine.Setup(dtype, settings, context=longest + work.max_tokens + 1)
            if responses is None:
                responses = _sampled(work, runner, setup)
            scores[Subject("engine", "prefill", dtype)] = _prefill(work, responses, runner, setup)
            scores[Subject("engine", "greedy", dtype)] = _greedy(work, runner, setup)
        assert responses is not None
        return responses, scores, runner.engines[-1]
    finally:
        runner.close()


def _batch(
    work: Work, *, run: int, seeded: bool = False, score: Tokens | None = None
) -> engine.Batch:
    rows = tuple(
        engine.Row(
            f"prompt {index}",
            prompt,
            seed=work.seed + index if seeded else None,
            score=() if score is None else score[index],
        )
        for index, prompt in enumerate(work.prompts)
    )
    return engine.Batch(rows, work.max_tokens, run=run)


def _sampled(work: Work, runner: EngineRunner, setup: engine.Setup) -> Tokens:
    outputs = runner.run(setup, _batch(work, run=0, seeded=True)).outputs
    return tuple(tuple(output.token_ids.tolist()) for output in outputs)


def _prefill(work: Work, responses: Tokens, runner: EngineRunner, setup: engine.Setup) -> Scores:
    first, again = (
        _logprobs(runner.run(setup, _batch(work, run=run, score=responses)).outputs)
        for run in range(RUNS)
    )
    return Scores(first, again)


def _greedy(work: Work, runner: EngineRunner, setup: engine.Setup) -> Scores:
    first, again = (runner.run(setup, _batch(work, run=run)).outputs for run in range(RUNS))
    return Scores(_logprobs(first), _logprobs(again), _tokens(first), _tokens(again))


def _logprobs(outputs: Sequence[engine.Output]) -> NDArray[np.float32]:
    return np.stack([output.logprobs for output in outputs])


def _tokens(outputs: Sequence[engine.Output]) -> NDArray[np.int32]:
    return np.stack([output.token_ids for output in outputs])


def _trainer_scores(
    work: Work,
    model: ModelFolder,
    responses: Tokens,
    threads: int,
    workdir: Path,
    progress: ProgressSink,
) -> dict[Subject, Scores]:
    child = AskedChild(
        TRAINER_MODULE,
        {},
        workdir,
        explain_crash=explain_trainer_crash,
        environment={"OMP_NUM_THREADS": str(threads)},
    )
    settings = TrainerSettings(
        kernels=work.engine.kernels, threads=threads, seed=work.seed, headroom=False
    )
    scores = {}
    try:
        for index, mode in enumerate(work.trainer_dtypes):
            at = ENGINE_ENDS + (1.0 - ENGINE_ENDS) * index / len(work.trainer_dtypes)
            progress(Progress(f"trainer {mode}", at))
            forward = Forward(model=model.path, mode=mode, settings=settings)
            question = Question(forward, work.prompts, responses, ROLLOUT).to_dict()
            first, again = (
                from_bits(list(child.ask(question)["bits"])).reshape(work.shape)
                for _ in range(RUNS)
            )
            scores[Subject("trainer", "forward", mode)] = Scores(first, again)
    finally:
        child.close()
    return scores


if __name__ == "__main__":
    child_main(run)
