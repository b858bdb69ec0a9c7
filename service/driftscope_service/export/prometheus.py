"""The store as Prometheus samples, read anew at every scrape. In: Database. Out: a registry."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from driftscope_service.export import metric_names
from driftscope_service.export.metric_names import KERNEL_TARGETS, OTHER_TARGET, Metric
from driftscope_service.jobs.job import JobState
from driftscope_service.store.database import Database
from driftscope_service.store.job_repository import JobRepository
from driftscope_service.store.kernel_verdict_repository import (
    KernelVerdictRepository,
    StoredVerdict,
)
from driftscope_service.store.report_repository import ReportRepository, StoredReport


class StoreCollector(Collector):
    """Numbers come from the database alone, so that they are the same after a restart.

    `models` bounds the label: reports of a model that is no longer offered are left out.
    """

    def __init__(self, database: Database, models: Collection[str]) -> None:
        self._database = database
        self._models = frozenset(models)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [_family(metric) for metric in metric_names.METRICS]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self._database.read() as connection:
            counts = JobRepository(connection).counts()
            latest = ReportRepository(connection).latest_per_model("paired")
            verdicts = KernelVerdictRepository(connection).all()
            check = ReportRepository(connection).latest("kernels")
        yield from paired_families([each for each in latest if each.model in self._models])
        yield kernel_verdict_family(verdicts)
        yield from kernel_check_families(check)
        yield _jobs_family(counts)
        build_info = _family(metric_names.BUILD_INFO)
        build_info.add_metric([version("driftscope")], 1.0)
        yield build_info


def registry_of(database: Database, models: Collection[str]) -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(StoreCollector(database, models))
    return registry


def paired_families(latest: Iterable[StoredReport]) -> list[GaugeMetricFamily]:
    """One family per metric of a cell, with one sample per cell whose number is defined."""
    families = {sample.metric.name: _family(sample.metric) for sample in metric_names.CELL_SAMPLES}
    last_success = _family(metric_names.PAIRED_LAST_SUCCESS)
    for report in latest:
        assert report.model is not None, "every paired probe has a model"
        last_success.add_metric([report.model], report.created_at.timestamp())
        for cell in report.summary["cells"]:
            labels = [report.model, cell["engine_dtype"], cell["trainer_dtype"]]
            for sample in metric_names.CELL_SAMPLES:
                value = cell["comparison"][sample.source]
                if value is not None:
                    family = families[sample.metric.name]
                    family.add_metric([*labels, *sample.more_labels], float(value))
    return [*families.values(), last_success]


def kernel_verdict_family(verdicts: Iterable[StoredVerdict]) -> GaugeMetricFamily:
    """One sample per labels, however many implementations share them."""
    found = {
        (
            verdict.target if verdict.target in KERNEL_TARGETS else OTHER_TARGET,
            verdict.op,
            verdict.dtype,
            str(verdict.threads),
            verdict.verdict,
        )
        for verdict in verdicts
    }
    family = _family(metric_names.KERNEL_VERDICT)
    for labels in sorted(found):
        family.add_metric(labels, 1.0)
    return family


def kernel_check_families(check: StoredReport | None) -> list[GaugeMetricFamily]:
    total = _family(metric_names.KERNEL_PLANTED)
    caught = _family(metric_names.KERNEL_PLANTED_CAUGHT)
    last_success = _family(metric_names.KERNELS_LAST_SUCCESS)
    if check is not None:
        total.add_metric([], check.summary["planted"]["total"])
        caught.add_metric([], check.summary["planted"]["caught"])
        last_success.add_metric([], check.created_at.timestamp())
    return [total, caught, last_success]


def _jobs_family(counts: dict[JobState, int]) -> GaugeMetricFamily:
    family = _family(metric_names.JOBS)
    for state, number in counts.items():
        family.add_metric([state], number)
    return family


def _family(metric: Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
