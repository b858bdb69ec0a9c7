"""The ways to run a nightly, each read by a tool of its own kind; a misspelt copy is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

FILES = Path(__file__).parents[2] / "docs" / "nightly"
COMMAND = re.compile(r"driftscope nightly(?: --history \S+)?|\[driftscope, nightly, .*\]")


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


def verify_units(folder: Path, service: str, timer: str) -> str:
    """What systemd-analyze has to say; the command is replaced by one that exists everywhere."""
    service = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", service)
    (folder / "driftscope-nightly.service").write_text(service, encoding="utf-8")
    (folder / "driftscope-nightly.timer").write_text(timer, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(folder / "driftscope-nightly.timer")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    # It warns of a misspelt name and still exits with 0.
    return done.stderr if done.stderr or done.returncode == 0 else f"exit code {done.returncode}"


@needs("systemd-analyze")
def test_systemd_takes_both_units_and_would_see_a_misspelt_one(tmp_path: Path) -> None:
    service, timer = (
        (FILES / f"driftscope-nightly.{kind}").read_text(encoding="utf-8")
        for kind in ("service", "timer")
    )
    assert verify_units(tmp_path, service, timer) == ""
    assert "Persistend" in verify_units(
        tmp_path, service, timer.replace("Persistent", "Persistend")
    )
    calendar = re.search(r"(?m)^OnCalendar=(.+)$", timer)
    assert calendar is not None
    subprocess.run(["systemd-analyze", "calendar", calendar[1]], check=True, capture_output=True)


def manifests(text: str) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def test_the_cron_job_is_one_night_at_a_time_on_its_own_volume() -> None:
    found = manifests((FILES / "cronjob.yaml").read_text(encoding="utf-8"))
    job = found["CronJob"]["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"][:1]]
    assert claims == [found["PersistentVolumeClaim"]["metadata"]["name"]]
    (container,) = pod["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    # An answer is not tried again until it is another.
    (failing,) = (
        r for r in job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in r
    )
    assert failing["action"] == "FailJob" and failing["onExitCodes"]["values"] == [1, 2]
    assert failing["onExitCodes"]["containerName"] == container["name"]


def lost_fields(text: str) -> set[str]:
    """Fields that kubectl does not know: it reads into its types and writes what it has read."""
    given = manifests(text)["CronJob"]
    done = subprocess.run(
        ["kubectl", "set", "env", "--local", "-f", "-", "A=b", "-o", "json"],
        input=yaml.safe_dump(given),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(names(given)) - set(names(json.loads(done.stdout)))


def names(value: object, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{prefix}.{name}"
            yield from names(inner, f"{prefix}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from names(inner, prefix)


@needs("kubectl")
def test_kubernetes_knows_every_field_and_would_not_know_a_misspelt_one() -> None:
    text = (FILES / "cronjob.yaml").read_text(encoding="utf-8")
    assert lost_fields(text) == set()
    misspelt = text.replace("concurrencyPolicy", "concurencyPolicy")
    assert lost_fields(misspelt) == {".spec.concurencyPolicy"}


def workflow_check(path: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("check_jsonschema")
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60)


def test_github_takes_the_workflow_and_would_refuse_a_misspelt_one(tmp_path: Path) -> None:
    path = FILES / "github-workflow.yml"
    done = workflow_check(path)
    assert done.returncode == 0, done.stdout
    misspelt = tmp_path / "nightly.yml"
    misspelt.write_text(path.read_text(encoding="utf-8").replace("runs-on", "run-on"))
    assert workflow_check(misspelt).returncode == 1


def test_actions_are_pinned_and_the_workflow_may_only_read() -> None:
    text = (FILES / "github-workflow.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (.+)", text)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    # YAML 1.1 reads the key `on` as true.
    (cron,) = (entry["cron"] for entry in workflow[True]["schedule"])
    assert check_cron(cron) is None
    assert workflow["concurrency"]["cancel-in-progress"] is False


FIELDS = {
    "minute": (0, 59),
    "hour": (0, 23),
    "day": (1, 31),
    "month": (1, 12),
    "weekday": (0, 7),
}


def check_cron(schedule: str) -> str | None:
    """What is wrong with five fields of numbers, lists, ranges and steps (crontab(5))."""
    fields = schedule.split()
    if len(fields) != len(FIELDS):
        return f"{len(fields)} fields"
    for field, (name, (least, most)) in zip(fields, FIELDS.items(), strict=True):
        for part in field.split(","):
            found = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?", part)
            if found is None:
                return f"{name}: {part}"
            numbers = [int(number) for number in found.groups()[:2] if number is not None]
            if any(not least <= number <= most for number in numbers):
                return f"{name}: {part}"
    return None


@pytest.mark.parametrize("schedule", ["60 3 * * *", "0 3 * *", "0 3 32 * *", "x 3 * * *"])
def test_the_check_of_schedules_refuses_what_cron_refuses(schedule: str) -> None:
    assert check_cron(schedule) is not None


def test_the_crontab_has_settings_and_one_job_without_percent_signs() -> None:
    text = (FILES / "crontab").read_text(encoding="utf-8")
    assert text.endswith("\n")  # cron refuses a last line without its end
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    jobs = [line for line in lines if not re.match(r"[A-Z_]+=", line)]
    (job,) = jobs
    assert check_cron(" ".join(job.split()[:5])) is None
    # An unescaped one ends the command.
    assert "%" not in job
    subprocess.run(["sh", "-n", "-c", job.split(maxsplit=5)[5]], check=True)
    if shutil.which("crontab"):
        done = subprocess.run(["crontab", "-T", str(FILES / "crontab")], capture_output=True)
        assert done.returncode == 0 or b"invalid option" in done.stderr


def test_the_schedule_of_the_cron_job_is_one() -> None:
    found = manifests((FILES / "cronjob.yaml").read_text(encoding="utf-8"))
    assert check_cron(found["CronJob"]["spec"]["schedule"]) is None


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_every_file_runs_the_command_and_is_named_in_the_page(path: Path) -> None:
    page = (FILES.parent / "nightly.md").read_text(encoding="utf-8")
    assert f"nightly/{path.name}" in page
    if path.suffix != ".timer":
        assert COMMAND.search(path.read_text(encoding="utf-8"))
