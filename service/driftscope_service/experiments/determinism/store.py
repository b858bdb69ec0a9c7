"""The last verdict on every axis of an engine, as /metrics and the pages show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select

from driftscope_service.store.tables import determinism_verdicts

SUBJECT = ("model", "engine", "axis", "dtype", "kernels")


@dataclass(frozen=True, slots=True)
class AxisVerdict:
    model: str
    engine: str
    axis: str
    dtype: str
    kernels: str
    verdict: str  # equal, differs, not_repeatable, not_run
    unique_outputs: int | None  # null where the axis was not run, as all below
    tokens: int | None
    mismatched_tokens: int | None
    report_id: str


class DeterminismRepository:
    """Works within the transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, model: str, axes: Iterable[Mapping[str, Any]], report_id: str) -> None:
        """Each replaces the previous one on the same subject; all others stay."""
        columns = determinism_verdicts.c
        for axis in axes:
            row = {"model": model, "report_id": report_id, **axis}
            same = and_(*(columns[name] == row[name] for name in SUBJECT))
            self._connection.execute(delete(determinism_verdicts).where(same))
            self._connection.execute(insert(determinism_verdicts).values(**row))

    def all(self) -> list[AxisVerdict]:
        """In the order of their subjects."""
        columns = [determinism_verdicts.c[name] for name in AxisVerdict.__slots__]
        order = [determinism_verdicts.c[name] for name in SUBJECT]
        rows = self._connection.execute(select(*columns).order_by(*order))
        return [AxisVerdict(**row._mapping) for row in rows]
