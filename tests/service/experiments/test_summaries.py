"""What of a report goes into the database: a summary that says what the report says."""

from __future__ import annotations

from collections import Counter
from typing import Any

from driftscope_service.demo import load
from driftscope_service.experiments.determinism import kind as determinism
from driftscope_service.experiments.kernels import kind as kernels
from driftscope_service.experiments.kind import Kind
from driftscope_service.experiments.nightly import kind as nightly
from driftscope_service.experiments.paired import kind as paired


def recorded(kind: Kind) -> tuple[dict[str, Any], dict[str, Any]]:
    """A report of the demo and its summary."""
    report = load.recorded_report(kind, kind.recordings[-1])
    return report, kind.summarise(kind.read(report))


def test_of_axes_the_tokens_that_differ_are_counted() -> None:
    report, summary = recorded(determinism.KIND)
    assert [axis["axis"] for axis in summary["axes"]] == [axis["axis"] for axis in report["axes"]]
    for axis, whole in zip(summary["axes"], report["axes"], strict=True):
        assert axis["verdict"] == whole["verdict"]
        mismatched = axis["mismatched_tokens"]
        assert (mismatched is None) == (whole["tokens"] is None)
        assert (bool(mismatched)) == (whole["verdict"] == "differs")


def test_of_kernels_every_verdict_is_kept() -> None:
    report, summary = recorded(kernels.KIND)
    verdicts = Counter(each["verdict"] for each in report["verdicts"])
    assert Counter(each["verdict"] for each in summary["verdicts"]) == verdicts
    caught, total = report["planted"]["caught"], report["planted"]["total"]
    assert kernels.sentence(summary) == (
        f"{verdicts['REFUTED']} of {verdicts.total()} refuted; "
        f"{caught} of {total} planted faults caught."
    )


def test_of_a_night_every_item_is_kept_and_the_end_is_told() -> None:
    report, summary = recorded(nightly.KIND)
    assert [item["id"] for item in summary["outcomes"]] == [item["id"] for item in report["items"]]
    told = {nightly.sentence({**summary, "exit_code": code}) for code in (0, 1, 2)}
    assert len(told) == 3 and all(f"{len(report['items'])} items." in one for one in told)


def test_of_a_pair_every_cell_is_kept_without_profiles() -> None:
    report, summary = recorded(paired.KIND)
    assert [(cell["engine_dtype"], cell["trainer_dtype"]) for cell in summary["cells"]] == [
        (cell["engine_dtype"], cell["trainer_dtype"]) for cell in report["grid"]
    ]
    assert all(
        cell.keys() == {"engine_dtype", "trainer_dtype", "comparison"} for cell in summary["cells"]
    )
    assert paired.sentence(summary) == report["reading"]["sentence"]
