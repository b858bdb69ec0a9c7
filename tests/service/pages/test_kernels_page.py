"""/kernels: the matrices of the last verdicts, what refutes a kernel, and the same as data."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from driftscope_service.experiments.kernels.matrix import kernel_matrix, kernels_state
from driftscope_service.experiments.kernels.store import StoredVerdict

HTML = {"accept": "text/html"}
_CLICK = "all => all.forEach(one => one.click())"
REFUTED = "torch/linear/eager/bf16/2"


def html(running: Any, path: str, status: int = 200) -> str:
    answer = running.client.get(path, headers=HTML)
    assert answer.status_code == status, answer.text
    return str(answer.text)


def verdict(op: str, dtype: str, threads: int, word: str, target: str = "torch") -> StoredVerdict:
    return StoredVerdict(target, op, "eager", dtype, threads, word, "report_1")


def test_the_matrix_has_every_verdict_once() -> None:
    given = [
        verdict(op, dtype, threads, "PROVED", target)
        for op in ("b", "a")
        for dtype in ("fp32", "bf16")
        for threads in (2, 1)
        for target in ("x", "w")
        if (op, dtype) != ("a", "fp32")
    ]
    matrix = kernel_matrix(given)
    assert matrix.columns == [("bf16", 1), ("bf16", 2), ("fp32", 1), ("fp32", 2)]
    assert matrix.dtypes == {"bf16": 2, "fp32": 2}
    assert list(matrix.groups) == ["a", "b"]
    found = [one for rows in matrix.groups.values() for row in rows for one in row.cells.values()]
    assert sorted(found, key=repr) == sorted(given, key=repr)


@pytest.mark.parametrize(
    "words, missed, tone",
    [
        (["PROVED", "STATIC", "NOT_REFUTED"], [], "good"),
        (["PROVED", "REFUTED"], [], "watch"),
        (["PROVED"], ["split_k"], "bad"),
    ],
)
def test_the_state_in_words(words: list[str], missed: list[str], tone: str) -> None:
    state = kernels_state([verdict("linear", "fp32", n, w) for n, w in enumerate(words)], missed)
    assert state.tone == tone
    assert state.sentence.startswith(f"{len(words)} verdicts: ")
    assert all(name in state.sentence for name in missed)


def test_without_a_verdict_the_page_says_how_to_get_one(running: Any) -> None:
    page = html(running, "/kernels")
    assert "No verdict on a kernel or an engine in this data folder yet" in page


def test_every_verdict_is_in_the_matrix(running: Any, reports: Any) -> None:
    report = reports.kernels_report()
    reports.store(running.service, report)
    page = html(running, "/kernels")
    links = set(re.findall(r'href="/kernels\?at=([^"#]+)#verdict"', page))
    assert len(links) == len(report.verdicts)
    assert "28 verdicts: 2 refuted, 14 not refuted, 12 proved." in page
    assert "in torch/linear" in page
    assert "Planted faults caught by the last check: 9 of 9." in page


def test_a_counterexample_with_its_replay(running: Any, reports: Any) -> None:
    stored = reports.store(running.service, reports.kernels_report())
    page = html(running, f"/kernels?at={REFUTED}")
    assert 'id="verdict"' in page
    assert "M-remainder path: batch sizes 1, 2, 3 differ from 65" in page
    assert "0xc021" in page
    assert "driftscope kernels check --replay" in page
    assert f'href="/reports/{stored}"' in page
    # Refuted ones stand below as well, without having been chosen.
    assert page.count("<summary>torch/linear/eager") == 2
    proved = html(running, "/kernels?at=driftscope/linear/fixed_order/bf16/1")
    assert "The same order of additions at every shape" in proved


def test_one_target_by_itself(running: Any, reports: Any) -> None:
    reports.store(running.service, reports.kernels_report())
    page = html(running, "/kernels?target=driftscope")
    assert "12 verdicts: 12 proved." in page
    assert "None: no kernel of driftscope is refuted." in page
    assert "torch/linear" not in page
    html(running, "/kernels?at=nothing/like/that", 422)


def test_a_planted_fault_that_was_missed(running: Any, reports: Any) -> None:
    reports.store(running.service, reports.kernels_report(caught=8))
    assert "missed planted faults (split_k)" in html(running, "/kernels")


def test_the_last_verdict_counts(running: Any, reports: Any) -> None:
    report = reports.kernels_report()
    reports.store(running.service, report)
    mended = [
        one.model_copy(update={"verdict": "PROVED", "counterexample": None, "detection_rate": 1.0})
        for one in report.verdicts
    ]
    reports.store(running.service, report.model_copy(update={"verdicts": mended}))
    assert "28 verdicts: 28 proved." in html(running, "/kernels")


def test_a_verdict_stays_when_its_report_is_gone(running: Any, reports: Any) -> None:
    stored = reports.store(running.service, reports.kernels_report())
    (running.data_dir / "reports" / stored / "report.json").unlink()
    assert "no longer in the data folder" in html(running, f"/kernels?at={REFUTED}")


def test_axes_of_engines_by_model(running: Any, reports: Any) -> None:
    stored = reports.store(running.service, reports.determinism_report(), "one-model")
    page = html(running, "/kernels")
    assert "Do engines give the same bits again?" in page
    assert "No verdict on a kernel" not in page
    assert page.count(f'href="/probes/{stored}"') == 44
    assert "58.8%, 3 outputs" in page
    data = running.client.get("/kernels/plots/axes.json").json()
    assert len(data["rows"]) == 44
    other = reports.determinism_report(kernels=("invariant",))
    reports.store(running.service, other, "other-model")
    assert html(running, "/kernels").count('-model, table"') == 2


def test_verdicts_as_data(running: Any, reports: Any) -> None:
    report = reports.kernels_report()
    reports.store(running.service, report)
    data = running.client.get("/kernels/plots/verdicts.json").json()
    found = {tuple(row[:6]) for row in data["rows"]}
    names = ("target", "op", "implementation", "dtype", "threads", "verdict")
    assert found == {tuple(getattr(one, name) for name in names) for one in report.verdicts}
    lines = running.client.get("/kernels/plots/verdicts.csv").text.splitlines()
    assert len(lines) == 1 + len(report.verdicts)
    assert running.client.get("/kernels/plots/none.json", headers=HTML).status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    scheme: Any,
    stored_reports: dict[str, str],
    look: Any,
    accessible: Callable[[Page], None],
) -> None:
    page = look(color_scheme=scheme).at(f"/kernels?at={REFUTED}")
    page.locator("details:not([open]) > summary").evaluate_all(_CLICK)
    accessible(page)


@pytest.mark.slow
def test_from_the_matrix_to_the_counterexample(stored_reports: dict[str, str], look: Any) -> None:
    page = look().at("/kernels")
    page.get_by_role("link", name="refuted", exact=True).first.click()
    expect(page.locator("#verdict")).to_contain_text("driftscope kernels check --replay")
    page.select_option("#target", "driftscope")
    expect(page).to_have_url(re.compile(r"target=driftscope$"))
    expect(page.locator(".sentence")).to_contain_text("12 proved")


@pytest.mark.slow
def test_on_a_phone_and_without_a_script(stored_reports: dict[str, str], look: Any) -> None:
    small = {"width": 390, "height": 800}
    page = look(viewport=small).at(f"/kernels?at={REFUTED}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    plain = look(java_script_enabled=False).at("/kernels")
    plain.select_option("#target", "torch")
    plain.get_by_role("button", name="Show").click()
    expect(plain).to_have_url(re.compile("target=torch"))
    plain.get_by_role("link", name="refuted", exact=True).first.click()
    expect(plain.locator("#verdict")).to_contain_text("M-remainder path")
