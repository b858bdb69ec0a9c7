"""/metrics: the numbers of the last probe of each model, and nothing that is undefined."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse
from sqlalchemy.exc import OperationalError

from driftscope_service.experiments.kernels import metrics as kernels
from driftscope_service.experiments.kernels.store import KernelVerdictRepository
from driftscope_service.experiments.paired import metrics as paired
from driftscope_service.experiments.registry import load_kinds
from driftscope_service.experiments.store import ReportFile, ReportRepository
from driftscope_service.jobs.claims import ClaimRepository
from driftscope_service.jobs.store import JobRepository
from driftscope_service.metrics.metric_names import CELL_SAMPLES, PROCESS_METRICS, sample_names
from driftscope_service.metrics_page import every_metric

CELL = {"model": "tiny-random-llama", "engine_dtype": "bf16", "trainer_dtype": "bf16"}
#: Samples that differ from run to run, or from release to release.
CHANGING = (
    *("timestamp_seconds{", "timestamp_seconds 1", "build_info{", "last_duration_seconds{"),
    *("storage_bytes{", "disk_free_bytes ", "disk_size_bytes "),
)
DTYPES = ["bf16", "fp16"]
STEP = {
    "metadata": {"schema_version": "1"},
    "rollout_logprobs": [[-0.5, -1.0, -2.0]],
    "trainer_logprobs": [[-0.5, -1.1, -2.0]],
}


def samples(running: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    page = running.client.get("/metrics")
    assert page.status_code == 200
    found = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in parse(page.text)
        for sample in family.samples
    ]
    assert len(dict(found)) == len(found)  # no series twice
    return dict(found)


def value(running: Any, name: str, **labels: str) -> float | None:
    return samples(running).get((name, frozenset(labels.items())))


def store(running: Any, model: str, cells: list[dict[str, Any]], number: int = 0) -> None:
    with running.service.database.write() as connection:
        job = JobRepository(connection).add("paired", model, {})
        claim = ClaimRepository(connection).claim_next(running.service.executor.owner)
        assert claim is not None
        file = ReportFile(f"report_{job.id}", f"reports/{number}/report.json", 1)
        ReportRepository(connection).add(
            file, job_id=job.id, kind="paired", model=model, summary={"cells": cells}
        )
        ClaimRepository(connection).succeed(claim.fence)


def cell(**numbers: float | None) -> dict[str, Any]:
    comparison = {sample.source: 0.5 for sample in CELL_SAMPLES} | numbers
    return {"engine_dtype": "bf16", "trainer_dtype": "bf16", "comparison": comparison}


def store_check(running: Any, caught: int = 8, threads: int = 1, **verdicts: str) -> None:
    """A kernel check of `linear` in fp32, a verdict for each target."""
    rows = [
        {
            **{"target": target, "op": "linear", "implementation": "eager", "dtype": "fp32"},
            **{"threads": threads, "verdict": verdict, "detection_rate": None},
        }
        for target, verdict in verdicts.items()
    ]
    summary = {"planted": {"caught": caught, "total": 9, "missed": []}, "verdicts": rows}
    with running.service.database.write() as connection:
        job = JobRepository(connection).add("kernels", None, {})
        claim = ClaimRepository(connection).claim_next(running.service.executor.owner)
        assert claim is not None
        file = ReportFile(f"report_{job.id}", "reports/k/report.json", 1)
        ReportRepository(connection).add(
            file, job_id=job.id, kind="kernels", model=None, summary=summary
        )
        KernelVerdictRepository(connection).put(rows, file.report_id)
        ClaimRepository(connection).succeed(claim.fence)


VERDICT = {"op": "linear", "dtype": "fp32", "threads": "1"}


def verdicts_of(running: Any, **labels: str) -> set[str]:
    found = [
        dict(known)
        for name, known in samples(running)
        if name == kernels.KERNEL_VERDICT.name and labels.items() <= dict(known).items()
    ]
    return {known["verdict"] for known in found}


def test_the_last_verdict_on_each_kernel_counts(running: Any) -> None:
    store_check(running, torch="REFUTED", driftscope="PROVED")
    store_check(running, torch="NOT_REFUTED")
    store_check(running, torch="INCONCLUSIVE", threads=2)
    assert verdicts_of(running, target="torch", **VERDICT) == {"NOT_REFUTED"}
    assert verdicts_of(running, target="torch", threads="2") == {"INCONCLUSIVE"}
    # A check of another kernel takes nothing away.
    assert verdicts_of(running, target="driftscope") == {"PROVED"}


def test_targets_of_packages_share_one_label(running: Any) -> None:
    store_check(running, acme="PROVED", zenith="PROVED", nadir="REFUTED")
    targets = {dict(known).get("target") for _, known in samples(running)} - {None}
    assert targets == {"other"}
    assert verdicts_of(running, target="other") == {"PROVED", "REFUTED"}


def test_a_kernel_check_of_the_service(running: Any) -> None:
    running.finished_kernels_report(targets=["torch", "driftscope"], threads=[1], seed=2)
    found = samples(running)
    assert verdicts_of(running, target="torch", **VERDICT) == {"REFUTED"}
    assert verdicts_of(running, target="driftscope", **VERDICT) == {"PROVED"}
    assert found[kernels.KERNEL_PLANTED.name, frozenset()] == 9
    assert found[kernels.KERNEL_PLANTED_CAUGHT.name, frozenset()] == 7
    with running.service.database.read() as connection:
        stored = ReportRepository(connection).latest("kernels")
    assert stored is not None
    name = kernels.KERNELS_LAST_SUCCESS.name
    assert found[name, frozenset()] == stored.created_at.timestamp()
    assert not any("paired" in name for name, _ in found)


def test_before_any_probe_there_are_jobs_and_no_cells(running: Any) -> None:
    found = samples(running)
    assert not any(name.startswith(("driftscope_paired", "driftscope_kernel")) for name, _ in found)
    for state in ("queued", "running", "succeeded", "failed", "cancelled"):
        assert found["driftscope_jobs", frozenset({("state", state)})] == 0
    assert value(running, "driftscope_build_info", version=version("driftscope")) == 1


def test_every_number_is_that_of_the_report(running: Any) -> None:
    report = running.finished_report(sampling={"seed": 7}, engine_dtypes=DTYPES)
    grid = running.client.get(f"/v1/reports/{report}").json()["grid"]
    assert len(grid) == 2
    for row in grid:
        labels = {**CELL, "engine_dtype": row["engine_dtype"]}
        for sample in CELL_SAMPLES:
            more = dict(zip(sample.metric.labels[3:], sample.more_labels, strict=True))
            exported = value(running, sample.metric.name, **labels, **more)
            assert exported == row["comparison"][sample.source], sample.metric.name


def test_the_latest_probe_of_a_model_counts(run_service: Any) -> None:
    name = "driftscope_paired_logprob_abs_diff_mean_nats"
    with run_service() as running:
        found = []
        for seed in (3, 9):
            report = running.finished_report(sampling={"seed": seed}, trainer_dtypes=DTYPES)
            grid = running.client.get(f"/v1/reports/{report}").json()["grid"]
            found.append(grid[0]["comparison"]["abs_diff_mean"])
            assert value(running, name, **CELL) == found[-1]
        assert found[0] != found[1]
        running.finished_report(sampling={"seed": 5}, model="tiny-random-moe")
        running.wait(running.start("refuse"))
        assert value(running, name, **CELL) == found[1]
        # A dtype that the latest probe left out must not linger.
        running.finished_report(sampling={"seed": 1})
        assert value(running, name, **{**CELL, "trainer_dtype": "fp16"}) is None
        before = samples(running)
    with run_service() as running:  # and it is the same after a restart
        after = samples(running)
    paired = {key: number for key, number in before.items() if "paired" in key[0]}
    assert paired and paired.items() <= after.items()


def test_undefined_is_left_out_and_never_zero(running: Any) -> None:
    store(running, CELL["model"], [cell(prob_pearson=None, kl_k1=None)])
    found = samples(running)
    cells = {dict(labels)["estimator"] for name, labels in found if name.endswith("paired_kl_nats")}
    assert cells == {"k2", "k3"}
    assert value(running, "driftscope_paired_prob_pearson_ratio", **CELL) is None
    assert value(running, "driftscope_paired_bitwise_equal_ratio", **CELL) == 0.5


def test_zero_is_a_number(running: Any) -> None:
    store(running, CELL["model"], [cell(abs_diff_max=0.0)])
    assert value(running, "driftscope_paired_logprob_abs_diff_max_nats", **CELL) == 0.0


def test_models_that_are_no_longer_offered_are_left_out(running: Any) -> None:
    store(running, "withdrawn", [cell()])
    assert "withdrawn" not in running.client.get("/metrics").text


def test_last_success_is_the_time_of_storing(running: Any) -> None:
    running.finished_report()
    with running.service.database.read() as connection:
        stored = ReportRepository(connection).latest_per_model("paired")[0]
    name = paired.PAIRED_LAST_SUCCESS.name
    assert value(running, name, model=CELL["model"]) == stored.created_at.timestamp()


def test_nothing_is_exported_that_is_not_listed(running: Any) -> None:
    running.finished_report()
    running.finished_kernels_report()
    names = {name for name, _ in samples(running) if name.startswith("driftscope_")}
    listed = [name for metric in every_metric(load_kinds()) for name in sample_names(metric)]
    assert names - set(listed) == set()
    assert {name for name in names if "_run_" in name} == set()
    page = running.client.get("/metrics").text
    heads = re.findall(r"^# TYPE (driftscope_[a-z0-9_]+)", page, re.MULTILINE)
    assert len(set(heads)) == len(heads)


def test_openmetrics_on_request(running: Any) -> None:
    running.finished_report()
    page = running.client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert page.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in parse_open(page.text)}  # type: ignore[no-untyped-call]
    assert "driftscope_paired_kl_nats" in names


def test_the_page_of_our_own_metrics(running: Any) -> None:
    """The whole text, so that any change of a name, label or help is seen."""
    numbers = {sample.source: 0.125 * index for index, sample in enumerate(CELL_SAMPLES)}
    store(running, CELL["model"], [cell(**numbers)])
    store_check(running, driftscope="PROVED", torch="REFUTED", acme="NOT_REFUTED")
    lines = [
        line
        for line in running.client.get("/metrics").text.splitlines()
        if "driftscope_" in line and not any(part in line for part in CHANGING)
    ]
    golden = Path(__file__).parent / "metrics.golden.txt"
    assert "\n".join(lines) + "\n" == golden.read_text(encoding="utf-8")


def names_on(running: Any, path: str, **headers: str) -> set[str]:
    page = running.client.get(path, headers=headers)
    assert page.status_code == 200
    return set(re.findall(r"^# TYPE (driftscope_[a-z0-9_]+)", page.text, re.MULTILINE))


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_the_halves_make_the_whole_and_have_nothing_in_common(running: Any, accept: str) -> None:
    """A series on both would be there once for every replica, and once more behind the balancer."""
    running.finished_report()
    running.finished_kernels_report()
    assert running.client.post("/v1/runs/r/steps/1/logprobs", json=STEP).status_code == 201
    process = names_on(running, "/metrics/process", accept=accept)
    shared = names_on(running, "/metrics/shared", accept=accept)
    assert process & shared == set()
    assert process | shared == names_on(running, "/metrics", accept=accept)
    total = "_total" if accept.startswith("text") else ""
    own = {metric.name.removesuffix("_total") + total * (metric.kind == "counter")
           for metric in PROCESS_METRICS}  # fmt: skip
    assert process == own


def test_a_process_tells_of_itself_while_its_database_is_away(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise OperationalError(None, None, OSError("away"))

    monkeypatch.setattr(running.service.database, "read", away)
    assert running.client.get("/metrics/shared").status_code == 503
    page = running.client.get("/metrics/process")
    assert page.status_code == 200
    for worker in ("executor", "token_keeper", "scheduler", "heartbeat"):
        assert f'driftscope_worker_up{{worker="{worker}"}} 1.0\n' in page.text


def promtool(page: str) -> subprocess.CompletedProcess[str]:
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not on PATH (Debian package: prometheus)")
    return subprocess.run(
        [path, "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )


def test_promtool_accepts_the_live_page(running: Any) -> None:
    running.finished_report()
    running.finished_kernels_report()
    for path in ("/metrics", "/metrics/process", "/metrics/shared"):
        done = promtool(running.client.get(path).text)
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), path


@pytest.mark.parametrize(
    "page",
    [
        "driftscope_no_help 1\n",
        "# HELP driftscope_wait_ms Wait.\n# TYPE driftscope_wait_ms gauge\ndriftscope_wait_ms 1\n",
        "# HELP drift_a_total No counter.\n# TYPE drift_a_total gauge\ndrift_a_total 1\n",
    ],
)
def test_promtool_rejects_a_bad_page(page: str) -> None:
    assert promtool(page).returncode != 0
