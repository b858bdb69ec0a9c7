"""Families of the last probes: cells of paired probes, verdicts and planted faults of kernels.

In: stored reports and verdicts. Out: Family.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from driftscope_service.experiments.store import StoredReport
from driftscope_service.metrics import metric_names
from driftscope_service.metrics.exposition import Family
from driftscope_service.metrics.metric_names import CELL_SAMPLES


def paired_families(latest: Iterable[StoredReport]) -> Iterator[Family]:
    """One family per number of a cell, with one sample per cell in which it is defined."""
    families = {sample.metric.name: Family(sample.metric) for sample in CELL_SAMPLES}
    last_success = Family(metric_names.PAIRED_LAST_SUCCESS)
    for report in latest:
        assert report.model is not None, "every paired probe has a model"
        last_success.add([report.model], report.created_at.timestamp())
        for cell in report.summary["cells"]:
            labels = [report.model, cell["engine_dtype"], cell["trainer_dtype"]]
            for sample in CELL_SAMPLES:
                # Reports of older versions lack newer numbers.
                value = cell["comparison"].get(sample.source)
                if value is not None:
                    families[sample.metric.name].add([*labels, *sample.more_labels], value)
    yield from families.values()
    yield last_success
