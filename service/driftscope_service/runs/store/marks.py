"""What people put on a run: tags, a note, and the pin of a baseline.

None of it is news of the training: the run keeps its place among the latest and stays as silent as
it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from driftscope_service.auth import reach
from driftscope_service.store.tables import run_tags, runs, steps

MAX_TAGS: Final = 16


@dataclass(frozen=True, slots=True)
class Baseline:
    """The run of a model that its other runs are compared with."""

    number: int
    name: str
    model: str


class RunMarks:
    """Works within the transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tags(self, numbers: Collection[int]) -> dict[int, list[str]]:
        """By number of the run, sorted; a run without tags is missing."""
        rows = self._connection.execute(
            select(run_tags.c.run_number, run_tags.c.tag).where(run_tags.c.run_number.in_(numbers))
        )
        found: dict[int, list[str]] = defaultdict(list)
        for number, tag in rows:
            found[number].append(tag)
        return {number: sorted(tags) for number, tags in found.items()}

    def tag(self, number: int, tags: Sequence[str]) -> None:
        """In place of those that it has."""
        self._connection.execute(delete(run_tags).where(run_tags.c.run_number == number))
        rows = [{"run_number": number, "tag": tag} for tag in dict.fromkeys(tags)]
        if rows:
            self._connection.execute(insert(run_tags), rows)

    def note(self, number: int, note: str | None) -> None:
        self._set(number, note=note or None)

    def pin(self, number: int, pinned: bool) -> None:
        """Pinned again, it is the latest of its model."""
        self._set(number, pinned_at=datetime.now(UTC) if pinned else None)

    def baselines(self, models: Collection[str]) -> dict[str, Baseline]:
        """By model, the run pinned last; a model without one is missing."""
        pinned = (
            select(
                *(runs.c[name] for name in ("number", "name", "model")),
                func.row_number()
                .over(
                    partition_by=runs.c.model,
                    order_by=(runs.c.pinned_at.desc(), runs.c.number.desc()),
                )
                .label("place"),
            )
            .where(
                runs.c.pinned_at.is_not(None),
                runs.c.model.in_(models),
                reach.current().visible(runs.c.name),
            )
            .subquery()
        )
        rows = self._connection.execute(
            select(pinned.c.number, pinned.c.name, pinned.c.model).where(pinned.c.place == 1)
        )
        return {model: Baseline(number, name, model) for number, name, model in rows}

    def last_values(self, numbers: Collection[int], metric: str) -> dict[int, float]:
        """Of the highest step of the series, by number of the run; one without is missing."""
        value = steps.c.series[metric].as_float()
        rows = self._connection.execute(
            select(steps.c.run_number, value)
            .join_from(
                steps,
                runs,
                and_(steps.c.run_number == runs.c.number, steps.c.step == runs.c.last_step),
            )
            .where(runs.c.number.in_(numbers), steps.c.superseded_by.is_(None))
        )
        return {number: found for number, found in rows if found is not None}

    def _set(self, number: int, **values: str | datetime | None) -> None:
        self._connection.execute(update(runs).where(runs.c.number == number).values(**values))
