"""Families of the last night. In: stored nights. Out: Family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from driftscope_service.experiments.nightly.store import Night
from driftscope_service.experiments.nightly.terminal import state
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family

#: Those of nightly_terminal. Every state has a sample, so that a rule can compare with 0.
ITEM_STATES = ("as_expected", "unexpected", "better", "worse", "new", "not_run")


def nightly_families(last: Night | None, last_success_at: datetime | None) -> Iterator[Family]:
    success = Family(metric_names.NIGHTLY_LAST_SUCCESS)
    finished = Family(metric_names.NIGHTLY_LAST_FINISHED)
    exit_code = Family(metric_names.NIGHTLY_EXIT_CODE)
    items = Family(metric_names.NIGHTLY_ITEMS)
    if last_success_at is not None:
        success.add([], last_success_at.timestamp())
    if last is not None:
        finished.add([], last.finished_at.timestamp())
        exit_code.add([], last.exit_code)
        counts = Counter(state(item).replace(" ", "_") for item in last.items)
        for name in ITEM_STATES:
            items.add([name], counts[name])
    yield from (success, finished, exit_code, items)
