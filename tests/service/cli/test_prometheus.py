"""`driftscope prometheus export`: files that promtool takes, links that lead somewhere, no loss."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from driftscope_probes.errors import RequestError
from driftscope_service.cli import prometheus
from driftscope_service.cli.prometheus import SERVICE, app
from driftscope_service.pages.documentation import ROOT as DOCS
from driftscope_service.pages.documentation import document

ROOT = Path(__file__).parents[3]
PUBLIC = "https://drift.example.com:8443/rl"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["export", *arguments])


@pytest.fixture
def exported(tmp_path: Path, clean_environment: None) -> Path:
    folder = tmp_path / "out"
    done = run(str(folder), "--service-url", PUBLIC + "/", "--grafana-url", "http://grafana:3000")
    assert done.exit_code == 0, done.output
    return folder


def rules(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def test_promtool_takes_the_rules_and_the_scrape_job(exported: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not on PATH (Debian package: prometheus)")
    # Whole: Prometheus before 2.43 knows no scrape_config_files.
    config = exported.parent / "prometheus.yml"
    scrape = (exported / "scrape.yml").read_text(encoding="utf-8")
    config.write_text(f"rule_files: [out/rules/*.yml]\n{scrape}", encoding="utf-8")
    done = subprocess.run([tool, "check", "config", str(config)], capture_output=True, text=True)
    assert done.returncode == 0 and "rules found" in done.stdout, done.stdout + done.stderr
    config.write_text(scrape.replace("scheme:", "schema:"), encoding="utf-8")
    done = subprocess.run([tool, "check", "config", str(config)], capture_output=True, text=True)
    assert done.returncode != 0


def test_every_link_of_an_alert_is_absolute_and_its_runbook_is_a_page(exported: Path) -> None:
    alerts = [rule for rule in rules(exported) if "alert" in rule]
    assert len(alerts) > 10
    for alert in alerts:
        runbook = alert["annotations"]["runbook_url"]
        page = runbook.replace("{{ $labels.cause }}", "norm_eps")
        assert page.startswith(f"{PUBLIC}{DOCS}/")
        assert document(page.removeprefix(PUBLIC + DOCS)) is not None, page
        assert f'"{PUBLIC}"' in alert["annotations"]["page_url"]
        assert '"http://grafana:3000"' in alert["annotations"]["dashboard_url"]
    text = "".join(
        path.read_text(encoding="utf-8") for path in exported.rglob("*") if path.is_file()
    )
    assert SERVICE not in text and "127.0.0.1:3000" not in text


def test_the_files_are_those_of_the_sources(exported: Path) -> None:
    (job,) = yaml.safe_load((exported / "scrape.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert (job["scheme"], job["metrics_path"]) == ("https", "/rl/metrics")
    assert job["static_configs"] == [{"targets": ["drift.example.com:8443"]}]
    assert job["sample_limit"] == 20000 and "authorization" not in job
    boards = {path.name for path in (ROOT / "dashboards" / "grafana").iterdir()}
    assert {path.name for path in (exported / "dashboards").iterdir()} == boards
    for board in boards:
        found = json.loads((exported / "dashboards" / board).read_text(encoding="utf-8"))
        source = json.loads((ROOT / "dashboards" / "grafana" / board).read_text(encoding="utf-8"))
        assert found["uid"] == source["uid"]


def test_nothing_is_overwritten_without_force(exported: Path) -> None:
    again = run(str(exported), "--service-url", PUBLIC, "--grafana-url", "http://grafana:3000")
    assert again.exit_code == 0 and "0 files written" in again.stdout
    mine = exported / "rules" / "alerts.rules.yml"
    mine.write_text("groups: []\n", encoding="utf-8")
    (exported / "scrape.yml").unlink()
    refused = run(str(exported))
    assert isinstance(refused.exception, RequestError)
    assert "rules/alerts.rules.yml" in refused.exception.message
    assert mine.read_text(encoding="utf-8") == "groups: []\n"
    assert not (exported / "scrape.yml").exists()  # nothing at all was written
    assert run(str(exported), "--force", "--key-file", "/run/key").exit_code == 0
    assert "credentials_file: /run/key" in (exported / "scrape.yml").read_text(encoding="utf-8")
    assert "RunBugLike" in mine.read_text(encoding="utf-8")


@pytest.mark.parametrize("url", ["drift.example.com", "ftp://a", "http://u:p@a", "https://a?b='\""])
def test_an_address_that_could_break_a_file_is_refused(url: str, tmp_path: Path) -> None:
    refused = run(str(tmp_path / "out"), "--service-url", url)
    assert isinstance(refused.exception, RequestError) and not (tmp_path / "out").exists()


def test_the_wheel_holds_what_the_command_reads() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    below = f"driftscope_service/{prometheus._PACKED}/"
    held = {path: target.removeprefix(below) for path, target in packed.items() if below in target}
    assert held == {
        f"dashboards/{'/'.join(place)}": "/".join(place)
        for place in (prometheus.RULES, prometheus.BOARDS, prometheus.CONFIGURATION)
    }
    # An image is built from what its Dockerfile copies.
    for image in (ROOT / "service" / "docker").glob("*.Dockerfile"):
        text = image.read_text(encoding="utf-8")
        if re.search(r"(?m)^COPY .*\bdocs\b", text):
            assert re.search(r"(?m)^COPY .*\bdashboards\b", text), image
