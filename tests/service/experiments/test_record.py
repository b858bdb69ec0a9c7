"""A report into the store: its file, its row and its verdicts together, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from driftscope_service.demo import load
from driftscope_service.experiments.determinism.kind import KIND
from driftscope_service.experiments.determinism.metrics import families
from driftscope_service.experiments.determinism.store import DeterminismRepository
from driftscope_service.experiments.kind import Kind
from driftscope_service.experiments.record import store_report
from driftscope_service.experiments.store import ReportFiles, ReportRepository
from driftscope_service.jobs.store import JobRepository
from driftscope_service.store import tables
from driftscope_service.store.database import Database
from driftscope_service.store.storage.local import LocalStorage

REPORT = load.recorded_report(KIND, KIND.recordings[0])


def store(database: Database, folder: Path, kind: Kind = KIND) -> str:
    def job_of(connection: Connection) -> str:
        return JobRepository(connection).add_succeeded(kind.name, "m", {}).id

    return store_report(
        REPORT,
        kind=kind,
        model="m",
        workdir=folder,
        job_of=job_of,
        database=database,
        files=ReportFiles(LocalStorage(folder)),
    ).report_id


def test_a_report_is_recorded_with_its_verdicts(database: Database, tmp_path: Path) -> None:
    report_id = store(database, tmp_path)
    with database.read() as connection:
        stored = ReportRepository(connection).get(report_id)
        verdicts = DeterminismRepository(connection).all()
    assert stored is not None and ReportFiles(LocalStorage(tmp_path)).content(stored) == REPORT
    assert {verdict.report_id for verdict in verdicts} == {report_id}
    assert len(verdicts) == len(REPORT["axes"])


def test_what_cannot_be_recorded_leaves_nothing(database: Database, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        store(database, tmp_path, replace(KIND, put_verdicts=refuse))
    assert list((tmp_path / "reports").iterdir()) == []
    with database.read() as connection:
        for table in (tables.jobs, tables.reports):
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 0


def axis(engine: str, verdict: str, unique: int | None) -> Mapping[str, Any]:
    subject = {"engine": engine, "axis": "threads", "dtype": "bf16", "kernels": "stock"}
    measured = {"unique_outputs": unique, "tokens": unique, "mismatched_tokens": unique}
    return {**subject, "verdict": verdict, **measured}


@pytest.mark.parametrize(
    ("verdicts", "shown"),
    [
        ((("equal", 1), ("differs", 4)), 'verdict="differs"'),
        ((("differs", 4), ("equal", 1)), 'verdict="differs"'),
        ((("not_run", None), ("equal", 4)), 'verdict="equal"'),
        ((("not_run", None), ("not_run", None)), 'verdict="not_run"'),
    ],
)
def test_of_several_engines_the_metrics_show_the_worst(
    database: Database, tmp_path: Path, verdicts: Any, shown: str
) -> None:
    report_id = store(database, tmp_path)
    axes = [axis(f"engine {index}", *each) for index, each in enumerate(verdicts)]
    with database.write() as connection:
        DeterminismRepository(connection).put("several", axes, report_id)
        families_of = [
            family.text(openmetrics=False)
            for family in families(connection, frozenset({"several"}))
        ]
        assert all("{" not in f.text(openmetrics=False) for f in families(connection, frozenset()))
    verdict, *measured = (
        [line for line in text.splitlines() if line[0] != "#"] for text in families_of
    )
    assert len(verdict) == 1 and shown in verdict[0]
    ran = shown != 'verdict="not_run"'
    assert all([line.endswith(" 4.0") for line in lines] == [True] * ran for lines in measured)
