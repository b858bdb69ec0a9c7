"""`driftscope jobs …` against a live service."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftscope_service.auth.service_call import ApiError
from driftscope_service.jobs.claims import ClaimRepository, Owner
from driftscope_service.jobs.command import app
from driftscope_service.jobs.job import JobError


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_show_tells_the_error_and_its_remedy(running: Any, url: str) -> None:
    job_id = running.start("refuse")
    running.wait(job_id)
    shown = run("show", job_id, "--url", url)
    assert shown.exit_code == 0
    assert "failed" in shown.stdout and "the engine is out of order." in shown.stdout
    assert "What to do: repair it." in shown.stdout


def test_json_is_the_answer_of_the_api(running: Any, url: str) -> None:
    job_id = running.start("succeed")
    job = running.wait(job_id)
    assert json.loads(run("show", job_id, "--json", "--url", url).stdout) == job
    assert json.loads(run("list", "--json", "--url", url + "/").stdout)["jobs"] == [job]
    assert job["links"]["report_html"] in run("show", job_id, "--url", url).stdout


def test_list_and_logs(running: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTSCOPE_URL", url)
    job_id = running.start("refuse")
    running.wait(job_id)
    assert "failed" in run("list").stdout
    assert json.loads(run("list", "--state", "queued", "--json").stdout)["jobs"] == []
    assert "quick probe: refuse" in run("logs", job_id).stdout


def test_both_kinds_are_listed(running: Any, url: str) -> None:
    running.finished_report()
    running.finished_kernels_report()
    job = running.client.get("/v1/jobs").json()["jobs"][0]
    assert (job["kind"], job["model"]) == ("kernels", None)
    listed = run("list", "--url", url).stdout
    assert "kernels" in listed and "paired" in listed
    assert "None" not in listed
    assert f"{job['id']}  succeeded  kernels  100%" in run("show", job["id"], "--url", url).stdout


def test_attempts_are_shown_with_their_logs(running: Any, url: str) -> None:
    """The first ran on a machine that is gone: of its log, the database has the end."""
    running.wait(running.start("sleep"), "running")
    job_id = running.start("succeed")
    with running.service.database.write() as connection:
        claims = ClaimRepository(connection)
        claim = claims.claim_next(Owner("instance_gone", "node-7", "ray"))
        assert claim is not None and claim.job.id == job_id
        lost = JobError("NodeLost", "the node is gone.", "see why.")
        claims.end_without_report(claim.fence, lost, log_tail="its last words")
    shown = run("show", job_id, "--url", url).stdout
    assert "attempt 1  failed  node-7, ray: the node is gone." in shown
    assert run("logs", job_id, "--attempt", "1", "--url", url).stdout == "its last words"
    assert run("logs", job_id, "--attempt", "2", "--url", url).stdout == ""
    assert running.client.get(f"/v1/jobs/{job_id}/logs?attempt=0").status_code == 422


def test_cancel(running: Any, url: str) -> None:
    job_id = running.start("sleep")
    assert run("cancel", job_id, "--url", url).exit_code == 0
    assert running.wait(job_id)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("show", "job_none"), "there is no job 'job_none'"),
        (("list", "--state", "lost"), "query/state"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_the_service(
    url: str, arguments: tuple[str, ...], part: str
) -> None:
    done = run(*arguments, "--url", url)
    assert isinstance(done.exception, ApiError)
    assert part in str(done.exception)
    assert "What to do" in str(done.exception)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://[::1", "nonsense"])
def test_no_service(address: str) -> None:
    done = run("list", "--url", address)
    assert isinstance(done.exception, ApiError)
    assert "driftscope serve" in done.exception.remedy
