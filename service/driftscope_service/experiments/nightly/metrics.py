"""Families of the last night."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sqlalchemy import Connection

from driftscope_service.experiments.nightly.store import NightlyRepository
from driftscope_service.experiments.nightly.terminal import state
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family

#: Those of nightly_terminal. Every state has a sample, so that a rule can compare with 0.
ITEM_STATES = ("as_expected", "unexpected", "better", "worse", "new", "not_run")


def families(connection: Connection, _offered: frozenset[str]) -> Iterator[Family]:
    nights = NightlyRepository(connection)
    last, last_success_at = nights.latest(), nights.last_success_at()
    success = Family(metric_names.NIGHTLY_LAST_SUCCESS)
    finished = Family(metric_names.NIGHTLY_LAST_FINISHED)
    exit_code = Family(metric_names.NIGHTLY_EXIT_CODE)
    items = Family(metric_names.NIGHTLY_ITEMS)
    if last_success_at is not None:
        success.add([], last_success_at.timestamp())
    if last is not None:
        finished.add([], last.finished_at.timestamp())
        exit_code.add([], last.exit_code)
        counts = Counter(state(outcome).replace(" ", "_") for outcome in last.outcomes)
        for name in ITEM_STATES:
            items.add([name], counts[name])
    yield from (success, finished, exit_code, items)
