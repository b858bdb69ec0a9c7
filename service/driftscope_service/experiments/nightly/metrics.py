"""Families of the last night."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from driftscope_service.experiments.nightly.store import NightlyRepository
from driftscope_service.experiments.nightly.terminal import state
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import gauge

#: Those of terminal.state. Every state has a sample, so that a rule can compare with 0.
ITEM_STATES = ("as_expected", "unexpected", "better", "worse", "new", "not_run")

NIGHTLY_LAST_SUCCESS = gauge(
    "nightly_last_success_timestamp",
    "seconds",
    "Unix time at which the last nightly run with exit code 0 ended.",
)
NIGHTLY_LAST_FINISHED = gauge(
    "nightly_last_finished_timestamp", "seconds", "Unix time at which the last nightly run ended."
)
NIGHTLY_EXIT_CODE = gauge(
    "nightly_exit_code",
    "",
    "Exit code of the last nightly run: 0 all as "
    "expected, 1 something changed, 2 it could not do its work.",
)
NIGHTLY_ITEMS = gauge(
    "nightly_items", "", "Items of the last nightly run by what became of them.", "state"
)
METRICS: Final = (NIGHTLY_LAST_SUCCESS, NIGHTLY_LAST_FINISHED, NIGHTLY_EXIT_CODE, NIGHTLY_ITEMS)


def families(connection: Connection, _offered: frozenset[str]) -> Iterator[Family]:
    nights = NightlyRepository(connection)
    last, last_success_at = nights.latest(), nights.last_success_at()
    success = Family(NIGHTLY_LAST_SUCCESS)
    finished = Family(NIGHTLY_LAST_FINISHED)
    exit_code = Family(NIGHTLY_EXIT_CODE)
    items = Family(NIGHTLY_ITEMS)
    if last_success_at is not None:
        success.add([], last_success_at.timestamp())
    if last is not None:
        finished.add([], last.finished_at.timestamp())
        exit_code.add([], last.exit_code)
        counts = Counter(state(item).replace(" ", "_") for item in last.items)
        for name in ITEM_STATES:
            items.add([name], counts[name])
    yield from (success, finished, exit_code, items)
