"""Recording and alert rules: promtool runs their tests, and no alert lacks a case, page or link."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from driftscope_probes.diagnosis.families.registry import BY_NAME
from driftscope_service.experiments.registry import load_kinds
from driftscope_service.metrics.metric_names import PREFIX, sample_names
from driftscope_service.metrics_page import every_metric
from driftscope_service.numbers.diagnosis_words import UNEXPLAINED

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "dashboards" / "prometheus"
RULE_FILES = sorted((FOLDER / "rules").glob("*.yml"))
TEST_FILES = sorted((FOLDER / "tests").glob("*.test.yml"))
CASES = ("firing", "not firing", "missing series")
#: The only alert that has to fire where a series is missing.
FIRES_WITHOUT_SERIES = {"ServiceAbsent"}
NAME_THEIR_CAUSE = {"RunBugLike"}
BOARDS = {"driftscope-run-health", "driftscope-attribution", "driftscope-determinism",
          "driftscope-service"}  # fmt: skip


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    return [
        rule for path in RULE_FILES for group in load(path)["groups"] for rule in group["rules"]
    ]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in rules() if "record" in rule}
TESTS = [test for path in TEST_FILES for test in load(path)["tests"]]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not on PATH (Debian package: prometheus)")
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False)


def case_of(alert: str, case: str) -> dict[str, Any]:
    found: dict[str, Any]
    [found] = [test for test in TESTS if test["name"] == f"{alert}: {case}"]
    return found


def expected_alerts(test: dict[str, Any]) -> list[dict[str, Any]]:
    return [alert for rule in test["alert_rule_test"] for alert in rule["exp_alerts"] or ()]


def names_in(text: str) -> set[str]:
    """Metrics and recorded series, which have colons."""
    found = set(re.findall(rf"\b(?:[a-z_]+:)?{PREFIX}[a-z0-9_]+(?::[a-z0-9_]+)?", text))
    return {name for name in found if "=" not in name}


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", *RULE_FILES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_runs_the_tests_of_the_rules() -> None:
    done = promtool("test", "rules", *TEST_FILES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_notices_a_threshold_that_moved(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "rules", tmp_path / "rules")
    shutil.copytree(FOLDER / "tests", tmp_path / "tests")
    path = tmp_path / "rules" / "alerts.rules.yml"
    text = path.read_text(encoding="utf-8")
    wrong = text.replace("run_limit_used_ratio:max > 1\n", "run_limit_used_ratio:max > 2\n")
    assert wrong != text
    path.write_text(wrong, encoding="utf-8")
    assert (
        promtool("test", "rules", tmp_path / "tests" / "RunDivergenceHigh.test.yml").returncode == 1
    )


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_all_three_cases(alert: str) -> None:
    for case in CASES:
        test = case_of(alert, case)
        assert {rule["alertname"] for rule in test["alert_rule_test"]} == {alert}
        fires = case == "firing" or (case == "missing series" and alert in FIRES_WITHOUT_SERIES)
        assert bool(expected_alerts(test)) == fires
    # Nothing that the alert reads may stand in its case of missing series.
    series = {each["series"].split("{")[0] for each in case_of(alert, CASES[2])["input_series"]}
    assert not series & read_by(ALERTS[alert]["expr"])


def read_by(expr: str) -> set[str]:
    """Metrics of an expression, through recorded series."""
    names = names_in(expr)
    recorded = names & RECORDED.keys()
    return (names - recorded).union(*(read_by(RECORDED[name]["expr"]) for name in recorded))


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url",
                                "page_url"}  # fmt: skip
    assert "$value" in annotations["summary"]
    if alert in NAME_THEIR_CAUSE:  # the runbook is the page of the cause
        assert annotations["runbook_url"] == "docs/causes/{{ $labels.cause }}.md"
    else:
        assert annotations["runbook_url"] == f"docs/runbooks/{alert}.md"
    page = (ROOT / "docs" / "runbooks" / f"{alert}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {alert}\n")
    for heading in ("## What it says", "## What to look at", "## What to do"):
        assert heading in page
    [fired, *_] = expected_alerts(case_of(alert, "firing"))
    board = urlsplit(fired["exp_annotations"]["dashboard_url"]).path
    assert board.removeprefix("/d/") in BOARDS


@pytest.mark.parametrize("cause", [*BY_NAME, UNEXPLAINED])
def test_every_cause_that_an_alert_may_name_has_a_page(cause: str) -> None:
    page = (ROOT / "docs" / "causes" / f"{cause}.md").read_text(encoding="utf-8")
    assert cause in page


def test_the_firing_cases_name_the_cause_in_their_annotations() -> None:
    for alert in ("RunBugLike", "RunDivergenceHigh"):
        fired = expected_alerts(case_of(alert, "firing"))[0]["exp_annotations"]
        assert any(name in fired["description"] for name in BY_NAME)
    runbook = expected_alerts(case_of("RunBugLike", "firing"))[0]["exp_annotations"]["runbook_url"]
    assert Path(runbook).stem in BY_NAME


def test_rules_use_only_metrics_that_are_exported() -> None:
    exported = {name for metric in every_metric(load_kinds()) for name in sample_names(metric)}
    used = set().union(*(names_in(rule["expr"]) for rule in rules()))
    assert used - exported - RECORDED.keys() == set()
    in_tests = {each["series"].split("{")[0] for test in TESTS for each in test["input_series"]}
    assert in_tests - exported - {"prometheus_build_info"} == set()


def test_an_unknown_metric_is_found() -> None:
    assert names_in('max by (run) (driftscope_made_up{run="driftscope_x"})') >= {
        "driftscope_made_up"
    }
    assert read_by("run:driftscope_run_limit_used_ratio:max > 1") == {
        "driftscope_run_limit_used_ratio"
    }


def test_recorded_names_say_level_metric_and_operation() -> None:
    for name in RECORDED:
        assert re.fullmatch(rf"(run|run_metric|instance):{PREFIX}[a-z_]+:[a-z0-9_]+", name)


def test_every_runbook_belongs_to_an_alert() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert pages == set(ALERTS)


def test_no_two_groups_have_one_name() -> None:
    groups = [group["name"] for path in RULE_FILES for group in load(path)["groups"]]
    assert len(set(groups)) == len(groups)
