"""The last verdict on every kernel, dtype and number of threads, as /metrics shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select

from driftscope_service.store.tables import kernel_verdicts

SUBJECT = ("target", "op", "implementation", "dtype", "threads")


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    target: str
    op: str
    implementation: str
    dtype: str
    threads: int
    verdict: str
    report_id: str


class KernelVerdictRepository:
    """Works within the transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, verdicts: Iterable[Mapping[str, Any]], report_id: str) -> None:
        """Each replaces the previous one on the same subject; all others stay."""
        for verdict in verdicts:
            subject = {name: verdict[name] for name in SUBJECT}
            columns = kernel_verdicts.c
            self._connection.execute(
                delete(kernel_verdicts).where(
                    and_(*(columns[name] == value for name, value in subject.items()))
                )
            )
            self._connection.execute(
                insert(kernel_verdicts).values(
                    **subject, verdict=verdict["verdict"], report_id=report_id
                )
            )

    def all(self) -> list[StoredVerdict]:
        """In the order of their subjects."""
        columns = [kernel_verdicts.c[name] for name in StoredVerdict.__slots__]
        order = [kernel_verdicts.c[name] for name in SUBJECT]
        rows = self._connection.execute(select(*columns).order_by(*order))
        return [StoredVerdict(**row._mapping) for row in rows]
