"""Explanation of a server's gap from outside: alignment, settings, variants, truncation, verdict.

In: a ServerExplainRequest. Out: ServerReport. Free of torch but for the tokenizer, which is loaded
when it is needed; the trainer runs in a child process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from driftscope_probes.device.environment import environment
from driftscope_probes.errors import EngineError
from driftscope_probes.explain.report import Check
from driftscope_probes.explain.server.alignment import (
    precision_of,
    scoring_check,
    served_checks,
    token_checks,
)
from driftscope_probes.explain.server.changed_folder import config_of
from driftscope_probes.explain.server.client import BudgetSpent, Served, ServerClient
from driftscope_probes.explain.server.examination import Examination, Measured
from driftscope_probes.explain.server.floors import floors_of
from driftscope_probes.explain.server.profile import texts_of
from driftscope_probes.explain.server.report import DOOR, KIND, ServerReport
from driftscope_probes.explain.server.request import ServerExplainRequest
from driftscope_probes.explain.server.trainer_side import ServerTrainer
from driftscope_probes.explain.server.unknown import unknown_from_outside
from driftscope_probes.explain.server.variants import Other
from driftscope_probes.explain.server.verdict import Concluded, Findings, conclude
from driftscope_probes.models.fetch import resolve
from driftscope_probes.models.folder import ModelFolder
from driftscope_probes.progress import Progress, ProgressSink, scaled
from driftscope_probes.prompts import PromptBatch, demo_prompts

SCHEMA_VERSION: Final = "1"
#: Fractions of the whole at which parts end, of a tiny model on two cores.
RESOLVED, ALIGNED, EXAMINED = 0.05, 0.25, 0.98
#: vLLM keeps room for a token behind the one that a scored prompt asks for.
ROOM: Final = 2


@dataclass(frozen=True, slots=True)
class Folders:
    """Of models that the caller has resolved already; None: the request's name is looked up."""

    model: Path | None = None
    trainer_model: Path | None = None
    other_models: tuple[Path | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Models:
    engine: ModelFolder
    trainer: ModelFolder
    others: Mapping[str, Other]
    apart: bool  # the trainer has a folder of its own


def explain_server(
    request: ServerExplainRequest,
    workdir: Path,
    progress: ProgressSink,
    *,
    folders: Folders = Folders(),
) -> ServerReport:
    """Raises ProbeError with a remedy where the server or the trainer does not answer at all.

    What is left when the budget is used up is listed in the report, not raised.
    """
    started = time.monotonic()
    models = _models(request, folders, scaled(progress, 0.0, RESOLVED))
    prompts = _prompts(request, models.engine)
    deadline = started + request.budget_s
    with (
        ServerClient(request, deadline) as client,
        ServerTrainer(request, models.trainer.path, workdir) as trainer,
    ):
        examination = Examination(request, client, trainer, deadline)
        return _report(request, models, prompts, client, examination, started, progress)


def _report(
    request: ServerExplainRequest,
    models: Models,
    prompts: PromptBatch,
    client: ServerClient,
    examination: Examination,
    started: float,
    progress: ProgressSink,
) -> ServerReport:
    progress(Progress("asking the server", RESOLVED))
    longest = prompts.longest + request.sampling.max_tokens
    checks = served_checks(client.facts, models.engine, longest + ROOM)
    measured: Measured | None = None
    concluded = _not_comparable(checks)
    if concluded is None:
        rows = tuple(tuple(prompts.ids(index)) for index in range(len(prompts)))
        sampling = request.sampling
        base = client.sample(rows, sampling.max_tokens, temperature=sampling.temperature)
        scored, reason = _scored(client, base)
        checks += token_checks(base.sequences, models.engine, models.trainer)
        checks.append(scoring_check(reason))
        # A server that does not score prompts is still compared on what it samples.
        concluded = _not_comparable([one for one in checks if one.what != "prompt_logprobs"])
    aligned = time.monotonic()
    if concluded is None:
        floors = floors_of(request, client, examination.trainer, base, models.engine)
        precision = precision_of(base.logprobs)
        texts = texts_of(_text(models.engine), _longest(request, client, models))
        configs = {"engine": config_of(models.engine.path)}
        if models.apart:
            configs["trainer"] = config_of(models.trainer.path)
        measured = examination.run(
            base,
            scored,
            texts,
            floors,
            precision,
            configs,
            models.others,
            scaled(progress, ALIGNED, EXAMINED),
        )
        concluded = conclude(
            Findings(
                gap=measured.gap,
                sigma=measured.sigma,
                floors=floors,
                precision=precision,
                settings=measured.settings,
                best=measured.best,
                truncation=measured.truncation,
            )
        )
    ended = time.monotonic()
    told = measured is not None and measured.told_cache
    return ServerReport(
        schema_version=SCHEMA_VERSION,
        kind=KIND,
        door=DOOR,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=models.engine.facts(request.model),
        trainer_model=models.trainer.facts(str(request.trainer_model)) if models.apart else None,
        request=ServerExplainRequest(**request.model_dump()),  # with every default
        verdict=concluded.verdict,
        equal=concluded.verdict == "equal",
        sentence=concluded.sentence,
        remedy=concluded.remedy,
        server={
            "version": client.facts.version,
            "model": client.facts.model,
            "root": client.facts.root,
            "max_length": client.facts.max_length,
            "declared_by_user": ["engine_dtype", "logprobs_mode"],
        },
        checks=checks,
        precision=None if measured is None else measured.precision,
        floors=None if measured is None else measured.floors,
        gap=None if measured is None else measured.gap,
        sigma=None if measured is None else measured.sigma,
        server_settings=[] if measured is None else measured.settings,
        trainer_variants=[] if measured is None else measured.variants,
        not_tried=[] if measured is None else measured.not_tried,
        best=None if measured is None else measured.best,
        truncation=None if measured is None else measured.truncation,
        unknown=unknown_from_outside(dtype_declared=request.engine_dtype, server_told_cache=told),
        notes=[] if measured is None else measured.notes,
        environment=environment(),
        timing={
            "alignment_s": aligned - started,
            "comparison_s": ended - aligned,
            "total_s": ended - started,
        },
        requests=client.requests,
    )


def _models(request: ServerExplainRequest, folders: Folders, progress: ProgressSink) -> Models:
    engine = resolve(str(folders.model or request.model), progress=progress)
    named = folders.trainer_model or request.trainer_model
    trainer = engine if named is None else resolve(str(named))
    places = folders.other_models or (None,) * len(request.other_models)
    folders_of = {
        name: resolve(str(place or name)).path
        for name, place in zip(request.other_models, places, strict=True)
    }
    apart = trainer.path != engine.path
    if apart:
        folders_of = {"the engine's folder": engine.path} | folders_of
    others = {name: Other(path, config_of(path)) for name, path in folders_of.items()}
    return Models(engine, trainer, others, apart)


def _prompts(request: ServerExplainRequest, model: ModelFolder) -> PromptBatch:
    # Imported here: it loads transformers, which the service must not.
    from driftscope_probes.tokenization import check_context, tokenize

    given = request.prompts
    prompts = demo_prompts(given) if isinstance(given, int) else given
    batch = tokenize(model.path, prompts, chat_template=request.chat_template)
    check_context(batch, request.sampling.max_tokens, model.max_context)
    return batch


def _text(model: ModelFolder) -> tuple[int, ...]:
    from driftscope_probes.tokenization import prompt_text

    return prompt_text(model.path)


def _longest(request: ServerExplainRequest, client: ServerClient, models: Models) -> int:
    served = client.facts.max_length or models.engine.max_context
    return min(request.longest, served - ROOM, models.trainer.max_context)


def _scored(client: ServerClient, base: Served) -> tuple[Served | None, str | None]:
    try:
        return client.score(base.sequences, together=False), None
    except BudgetSpent:
        raise
    except EngineError as error:
        return None, error.message


def _not_comparable(checks: list[Check]) -> Concluded | None:
    failed = [check for check in checks if not check.equal]
    if not failed:
        return None
    said = "; ".join(f"{check.what}: {check.says}" for check in failed)
    return Concluded(
        "not_comparable",
        f"Server and trainer were not asked the same: {said}.",
        "give the folder of the model that the server serves, and prompts that fit.",
    )


def run_probe(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """`request`: of ServerExplainRequest; `model_path`, `trainer_model_path`, `other_paths`:
    folders that were resolved, which may be absent or null. Raises ProbeError.
    """
    folders = Folders(
        _path(request.get("model_path")),
        _path(request.get("trainer_model_path")),
        tuple(map(_path, request.get("other_paths") or ())),
    )
    asked = ServerExplainRequest(**request["request"])
    return explain_server(asked, workdir, progress, folders=folders).to_dict()


def _path(given: str | None) -> Path | None:
    return Path(given) if given else None
