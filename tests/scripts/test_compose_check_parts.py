"""The parts of the compose check that need no container: what they read and would see."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
import yaml
from scripts.compose_check import base_images, machine, survival
from scripts.compose_check.build import image_name, read_pip_settings
from scripts.compose_check.client import Client
from scripts.compose_check.containment import Expected
from scripts.compose_check.engine import CommandFailed, run
from scripts.compose_check.report import Report
from scripts.compose_check.stack import PROFILES, SERVICES, Stack
from scripts.compose_check.survival import Kept

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
LISTING = """\
:env:.cert='/etc/ssl/ca.crt'
:env:.find-links='/srv/wheels'
global.find-links='/elsewhere'
global.extra-index-url='file:///srv/index/simple https://index.example.org/simple'
install.no-binary='none'
"""


def test_pip_in_the_build_is_configured_as_on_the_machine() -> None:
    pip = read_pip_settings(LISTING)
    assert pip.options["find-links"] == "/srv/wheels", "the environment comes first"
    assert pip.paths == (Path("/etc/ssl/ca.crt"), Path("/srv/index"), Path("/srv/wheels"))
    assert "extra-index-url = file:///srv/index/simple https://index.example.org" in pip.file()


def test_every_image_has_a_stand_in_and_a_recipe() -> None:
    names = base_images.asked_for(ROOT)
    assert [name.partition(":")[0] for name in names] == sorted(base_images.VERSIONS)
    for stand_in, _ in base_images.VERSIONS.values():
        text = (base_images.STAND_INS / f"{stand_in}.Containerfile").read_text()
        assert f"FROM {base_images.BASE}" in text
    assert image_name(ROOT) == COMPOSE["service"]["image"]


def test_the_check_starts_every_service_but_grafana_and_the_gpu() -> None:
    assert set(COMPOSE) - set(SERVICES) == {"grafana", "service-gpu"}
    needed = {profile for name in SERVICES for profile in COMPOSE[name].get("profiles", [])}
    assert needed == set(PROFILES)


def test_what_is_expected_of_a_container_is_read_from_the_file() -> None:
    service = Expected.of(COMPOSE["service"], {})
    assert service == Expected("10001:10001", 16 * 2**30, {"8321/tcp": "127.0.0.1:8321"})
    assert Expected.of(COMPOSE["postgres"], {}).ports == {}
    other = Expected.of(COMPOSE["service"], {"SERVICE_PORT": "4", "DRIFTSCOPE_MEM_LIMIT": "2g"})
    assert (other.memory, other.ports) == (2 * 2**30, {"8321/tcp": "127.0.0.1:4"})


def test_a_lost_step_a_lost_report_and_a_lost_sample_are_seen() -> None:
    before = Kept({0: "a", 1: "b"}, {"r": "x"}, ("[1, '1']", "[2, '1']"))
    more = Kept({**before.steps, 2: "c"}, {**before.reports, "s": "y"}, before.samples)
    assert more.lost_since(before) == []
    assert Kept({0: "a"}, before.reports, before.samples).lost_since(before) == ["step 1"]
    assert Kept({0: "a", 1: "other"}, {"r": "other"}, ("[1, '1']",)).lost_since(before) == [
        "step 1", "report r", "sample [2, '1']",
    ]  # fmt: skip


def test_where_there_is_nothing_to_lose_the_check_says_so() -> None:
    assert Kept({0: "a"}, {"r": "x"}, ("s",)).absent() == []
    assert Kept({0: "a"}, {}, ()).absent() == ["report", "sample"]


class WithoutReports:
    """A client of a stack in which no report was stored."""

    def query(self, expression: str, at: float | None = None) -> list[dict[str, object]]:
        return [{"values": [[1.0, "1"]]}]

    def steps(self) -> dict[int, str]:
        return {0: "a"}

    def reports(self) -> dict[str, str]:
        return {}


def test_survival_without_a_report_is_a_finding_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    client = cast(Client, WithoutReports())
    monkeypatch.setattr(survival, "SERVICES", ())
    monkeypatch.setattr(survival, "wait_for", lambda *given: None)
    report = Report()
    survival.check_survival(cast(Stack, None), client, report)
    failed = [finding for finding in report.findings if not finding.holds]
    assert [finding.seen for finding in failed] == ["no report"]


def test_a_report_passes_only_with_every_finding_and_to_the_end(tmp_path: Path) -> None:
    report = Report()
    report.say("service", "healthy", True, "healthy")
    assert not report.passed, "its last part was not run"
    report.complete = True
    assert report.passed
    report.error = "interrupted"
    assert not report.passed and "interrupted" in report.text()
    report.error = None
    report.say("service", "read-only root", False, "writable")
    report.write(tmp_path / "new")
    assert not report.passed
    assert "FAIL service: read-only root: writable" in (tmp_path / "new/report.txt").read_text()
    assert '"passed": false' in (tmp_path / "new/report.json").read_text()


def test_in_place_of_a_port_in_use_another_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    published = {Expected.of(COMPOSE[name], {}).ports.popitem()[1] for name in SERVICES[1:]}
    assert published == {f"127.0.0.1:{port}" for port in machine.PORTS.values()}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(machine, "PORTS", {"SERVICE_PORT": port})
        assert machine.ports()["SERVICE_PORT"] != port
    assert machine.ports() == {"SERVICE_PORT": port}


def test_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in str(machine.why_not())


def test_a_command_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="ended with 3:\nwhy"):
        run(["sh", "-c", "echo why >&2; exit 3"])
    log = tmp_path / "log"
    with pytest.raises(CommandFailed, match="why"):
        run(["sh", "-c", "echo why >&2; exit 3"], log=log)
    assert log.read_text() == "why\n"


def test_it_says_what_keeps_it_from_running_here() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.compose_check", "--why-not"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    script = f"trap 'touch {mark}; exit' TERM; while :; do sleep 0.05; done"
    with pytest.raises(CommandFailed, match="not done in 1 s"):
        run(["sh", "-c", script], seconds=1.0)
    assert mark.exists(), "SIGTERM came first, and was waited for"
