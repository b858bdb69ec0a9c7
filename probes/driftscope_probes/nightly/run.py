"""One night, top to bottom: resume or start, run what is left, judge, write.

In: a configuration and the folder of the history. Out: NightlyReport; the history has it too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from driftscope_probes.device.environment import key_of, night_environment
from driftscope_probes.errors import RequestError
from driftscope_probes.nightly.history import History, Night, load_history, start_night
from driftscope_probes.nightly.item import EngineItem, Finding, Item, KernelItem, not_run
from driftscope_probes.nightly.report import (
    NightConfig,
    NightKey,
    NightlyReport,
    alarms,
    changed_environment,
    comparable,
    exit_code,
    judge,
)
from driftscope_probes.nightly.request import DEFAULT_FILE, NightlyConfig, read_config
from driftscope_probes.nightly.shared_process import Budget, OutOfTime, SharedWork, run_shared
from driftscope_probes.nightly.work import engine_work, kernel_work
from driftscope_probes.progress import Progress, ProgressSink

#: Resume an interrupted night until the next is due: its findings belong to one night.
RESUME_WITHIN = timedelta(hours=20)
SCHEMA: Final = "1"
OUT_OF_TIME = "the time budget was used up before"

Page = Callable[[NightlyReport], str]


def run_probe(request: Mapping[str, Any], _workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """Called by the service: the operator's file or the shipped one; history in the data folder."""
    asked = request["request"]
    config = read_config(Path(asked["config"]) if asked["config"] else DEFAULT_FILE)
    return run_nightly(config, Path(asked["history"]), progress).to_dict()


def run_nightly(
    config: NightlyConfig,
    history_dir: Path,
    progress: ProgressSink,
    budget_s: float | None = None,
    *,
    resume: bool = True,
    pages: Mapping[str, Page] | None = None,
) -> NightlyReport:
    """`budget_s`: seconds, else the configuration's. `pages`: files in addition to report.json.

    Raises RequestError if another night is running on the same history.
    """
    budget_s = config.budget_s if budget_s is None else budget_s
    history_dir.mkdir(parents=True, exist_ok=True)
    with _alone(history_dir):
        history = load_history(history_dir)
        environment, notes = night_environment()
        key = key_of(environment)
        night = _unfinished(history, config, environment) if resume else None
        night = night or start_night(history_dir, config.sha256, key, environment)
        findings = {item.id: f for item in config.items if (f := night.findings.get(item.id))}
        resumed = len(findings)
        spent = sum(finding.seconds for finding in findings.values())
        _run(config, night, findings, progress, Budget(budget_s, spent))
        report = _report(
            *(config, history, night, findings, environment, resumed, budget_s),
            notes=(*history.notes, *notes),
        )
        night.close(
            {name: page(report) for name, page in (pages or {}).items()},
            json.dumps(report.to_dict(), allow_nan=False, ensure_ascii=False),
        )
    return report


@contextmanager
def _alone(history_dir: Path) -> Iterator[None]:
    lock = FileLock(history_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RequestError(
            f"another night is running on {history_dir}.",
            remedy="wait until it has ended, or give --history another folder.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _unfinished(
    history: History, config: NightlyConfig, environment: Mapping[str, Any]
) -> Night | None:
    since = datetime.now(UTC) - RESUME_WITHIN
    return history.unfinished(config.sha256, environment, since)


def _run(
    config: NightlyConfig,
    night: Night,
    findings: dict[str, Finding],
    progress: ProgressSink,
    budget: Budget,
) -> None:
    """Fill `findings`; each is in the history before the next one begins."""
    total = len(config.items)

    def record(item: Item, finding: Finding) -> None:
        night.finish(item.id, finding)
        findings[item.id] = finding

    def show(step: Progress) -> None:
        detail = f"{len(findings)} of {total} items"
        progress(Progress(step.stage, len(findings) / total, detail))

    try:
        for group in _groups(config.items, findings):
            run_shared(_work(group), record, show, budget)
    except OutOfTime:
        for item in config.items:
            # Not recorded: the night ran out of time before them.
            findings.setdefault(item.id, not_run(item, f"{OUT_OF_TIME} {item.id}"))
    assert len(findings) == total
    progress(Progress("done", 1.0, f"{total} of {total} items"))


def _groups(items: tuple[Item, ...], findings: Mapping[str, Finding]) -> Iterator[list[Item]]:
    """Items not found yet, by the process they share, in the order of the file."""
    groups: dict[tuple[Any, ...], list[Item]] = {}
    for item in items:
        if item.id not in findings:
            groups.setdefault(item.process, []).append(item)
    yield from groups.values()


def _work(group: list[Item]) -> SharedWork:
    """Items that share a process are of one kind."""
    if isinstance(group[0], KernelItem):
        return kernel_work([item for item in group if isinstance(item, KernelItem)])
    return engine_work([item for item in group if isinstance(item, EngineItem)])


def _report(
    config: NightlyConfig,
    history: History,
    night: Night,
    findings: Mapping[str, Finding],
    environment: Mapping[str, Any],
    resumed: int,
    budget_s: float,
    notes: tuple[str, ...],
) -> NightlyReport:
    earlier = [one.report for one in history.finished() if one.report is not None]
    reports = comparable(earlier, night.key["hardware"])
    judged = judge(config.items, findings, reports)
    changes = changed_environment(
        reports[0] if reports else None, environment, config.sha256, judged
    )
    reasons = tuple(
        alarms(
            *(judged, changes),
            fail_on_environment=config.fail_on_environment,
            fail_on_bits=config.fail_on_bits,
        )
    )
    return NightlyReport(
        schema_version=SCHEMA,
        kind="nightly",
        exit_code=exit_code(judged, reasons),
        started_at=night.started_at.isoformat(),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config=NightConfig(name=config.name, sha256=config.sha256),
        key=NightKey(**night.key),
        alarms=reasons,
        items=tuple(one.report() for one in judged),
        changed_environment=changes,
        environment=dict(environment),
        resumed=resumed,
        budget_s=budget_s,
        notes=notes,
    )
