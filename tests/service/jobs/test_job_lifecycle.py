"""Jobs from request to end, with probes that are real processes: every way a job can end."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ProcessesOf = Callable[[str], list[int]]
Eventually = Callable[[Callable[[], bool]], None]


def test_a_probe_that_succeeds_leaves_a_report(running: Any) -> None:
    job_id = running.start("succeed", engine_dtypes=["bf16", "fp16"])
    job = running.wait(job_id)
    assert job["state"] == "succeeded"
    assert job["progress"] == {"stage": "done", "fraction": 1.0, "detail": ""}
    assert job["error"] is None
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]

    report = running.client.get(job["links"]["report"])
    assert report.headers["content-type"] == "application/json"
    cells = [(cell["engine_dtype"], cell["trainer_dtype"]) for cell in report.json()["grid"]]
    assert cells == [("bf16", "bf16"), ("fp16", "bf16")]
    folder = running.data_dir / "reports" / job["links"]["report"].rsplit("/", 1)[1]
    assert sorted(path.name for path in folder.rglob("*")) == [
        "bf16--bf16.safetensors",
        "fp16--bf16.safetensors",
        "pairs",
        "report.json",
    ]


def test_a_probe_of_the_service_does_not_ask_the_hub(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    report = running.client.get(f"/v1/reports/{running.finished_report()}").json()
    assert report["environment"]["variables"] == {"HF_HUB_OFFLINE": "1"}


def test_only_logs_and_stages_stay_in_the_job_folder(running: Any, eventually: Eventually) -> None:
    job_id = running.start("succeed")
    running.wait(job_id)
    folder = running.data_dir / "jobs" / job_id / "attempt-1"
    kept = {"log.txt", "stages.jsonl", "request.json", "rollout-bf16/log.txt"}
    eventually(
        lambda: (
            {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == kept
        )
    )
    logs = running.client.get(f"/v1/jobs/{job_id}/logs")
    assert logs.headers["content-type"].startswith("text/plain")
    assert "quick probe: succeed" in logs.text
    assert "the engine's own words" in logs.text


def test_an_error_of_the_probe_reaches_the_client_with_its_remedy(running: Any) -> None:
    job = running.wait(running.start("refuse"))
    assert job["state"] == "failed"
    assert job["error"] == {
        "error": "EngineError",
        "message": "the engine is out of order.",
        "remedy": "repair it.",
    }
    assert job["links"]["report"] is None
    assert not list((running.data_dir / "reports").glob("*"))


def test_a_killed_probe_fails_and_names_the_signal(running: Any) -> None:
    job = running.wait(running.start("crash"))
    assert (job["state"], job["error"]["error"]) == ("failed", "ProbeCrashed")
    assert "SIGKILL" in job["error"]["message"]


def test_a_probe_that_leaves_without_a_result_fails_with_its_last_line(running: Any) -> None:
    job = running.wait(running.start("leave"))
    assert job["state"] == "failed"
    assert "exit code 3" in job["error"]["message"]
    assert "the last line of the log" in job["error"]["message"]


def test_a_result_that_is_no_report_fails_and_leaves_nothing(running: Any) -> None:
    job = running.wait(running.start("nonsense"))
    assert (job["state"], job["error"]["error"]) == ("failed", "ServiceFailed")
    assert running.finished_report()  # the slot goes on


def test_cancel_stops_the_probe_and_what_it_started(
    running: Any, eventually: Eventually, is_gone: Callable[[int], bool], processes_of: ProcessesOf
) -> None:
    job_id = running.start("family")
    note = running.data_dir / "jobs" / job_id / "attempt-1" / "grandchild.log.txt"
    eventually(lambda: note.exists() and note.read_text() != "")
    grandchild = int(note.read_text())
    assert len(processes_of(job_id)) == 2

    answer = running.client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 202
    assert answer.json()["cancel_requested"]
    job = running.wait(job_id)
    assert (job["state"], job["error"]) == ("cancelled", None)
    assert is_gone(grandchild)
    assert processes_of(job_id) == []
    assert running.finished_report()  # the slot is free again


@pytest.mark.parametrize("act", ["widow", "heir"])
def test_a_crash_takes_the_grandchild_with_it(
    running: Any, eventually: Eventually, processes_of: ProcessesOf, act: str
) -> None:
    """Also where the grandchild has the progress pipe, which then does not end by itself."""
    job_id = running.start(act)
    job = running.wait(job_id)
    assert (job["state"], job["error"]["error"]) == ("failed", "ProbeCrashed")
    eventually(lambda: processes_of(job_id) == [])


def test_a_probe_over_its_time_is_stopped(run_service: Any, processes_of: ProcessesOf) -> None:
    with run_service(job_time_limit_seconds=1.0) as running:
        job_id = running.start("sleep")
        job = running.wait(job_id)
        assert (job["state"], job["error"]["error"]) == ("failed", "JobTimedOut")
        assert "limit of 1 s" in job["error"]["message"]
        assert "DRIFTSCOPE_JOB_TIME_LIMIT_SECONDS" in job["error"]["remedy"]
        assert processes_of(job_id) == []


def test_jobs_wait_their_turn_and_the_queue_is_bounded(run_service: Any) -> None:
    with run_service(max_queued_jobs=2) as running:
        first = running.start("sleep")
        running.wait(first, "running")
        second, third = running.start("succeed"), running.start("succeed")
        refused = running.post("succeed")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["type"] == "/problems/queue-full"
        assert running.job(second)["state"] == "queued"

        running.client.post(f"/v1/jobs/{first}/cancel")
        done = [running.wait(second), running.wait(third)]
        assert [job["state"] for job in done] == ["succeeded", "succeeded"]
        assert done[0]["finished_at"] <= done[1]["started_at"]


def test_two_slots_run_two_probes(run_service: Any) -> None:
    with run_service(max_concurrent_probes=2) as running:
        jobs = [running.start("sleep"), running.start("sleep"), running.start("sleep")]
        for job_id in jobs[:2]:
            running.wait(job_id, "running")
        assert running.job(jobs[2])["state"] == "queued"


def test_cancelling_a_waiting_job_never_starts_it(running: Any) -> None:
    first = running.start("sleep")
    running.wait(first, "running")
    second = running.start("succeed")
    assert running.client.post(f"/v1/jobs/{second}/cancel").json()["state"] == "cancelled"
    assert running.client.post(f"/v1/jobs/{second}/cancel").status_code == 202
    assert running.job(second)["started_at"] is None


@pytest.mark.parametrize("act", ["succeed", "refuse"])
def test_a_job_that_ended_by_itself_cannot_be_cancelled(running: Any, act: str) -> None:
    job_id = running.start(act)
    before = running.wait(job_id)
    answer = running.client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 409
    assert answer.json()["type"] == "/problems/job-finished"
    assert running.job(job_id) == before


def test_progress_is_seen_while_the_probe_runs(running: Any, eventually: Eventually) -> None:
    job_id = running.start("babble")
    eventually(lambda: (running.job(job_id)["progress"] or {}).get("stage") == "last words")
    assert running.job(job_id)["progress"]["fraction"] == 0.99


def test_a_stopped_service_leaves_no_process_and_the_next_one_goes_on(
    run_service: Any, processes_of: ProcessesOf, eventually: Eventually
) -> None:
    with run_service() as running:
        job_id = running.start("family")
        eventually(lambda: (running.job(job_id)["progress"] or {}).get("stage") == "family")
        waiting = running.start("succeed")
    assert processes_of(job_id) == []
    with run_service() as running:
        # In their order: the one that was stopped is the older.
        again = running.wait(job_id, "running")
        assert running.job(waiting)["state"] == "queued"
        first, second = again["attempts"]
        assert (first["outcome"], second["outcome"]) == ("stopped", None)
        assert first["reason"]["error"] == "ServiceStopped"
        assert "the probe was running" in first["reason"]["message"]
        assert (first["host"], first["executor"]) == (second["host"], "local")
        assert first["instance"] != second["instance"]
        assert "quick probe: family" in running.client.get(first["logs"]).text
        page = running.client.get(f"/jobs/{job_id}", headers={"accept": "text/html"}).text
        assert "stopped with the service" in page and "Log of attempt 2" in page
        running.client.post(f"/v1/jobs/{job_id}/cancel")
        assert running.wait(job_id)["attempts"][1]["outcome"] == "cancelled"
        done = running.wait(waiting)
        assert (done["state"], len(done["attempts"])) == ("succeeded", 1)
    assert processes_of(job_id) == []


def test_a_model_of_the_operator_becomes_its_folder(run_service: Any, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    with run_service(models={"my-model": folder}) as running:
        report = running.finished_report(model="my-model")
        model = running.client.get(f"/v1/reports/{report}").json()["model"]
        assert (model["name"], model["path_given"]) == ("my-model", str(folder))


def test_an_endpoint_of_the_operator_becomes_its_address(run_service: Any) -> None:
    endpoint = {"url": "http://127.0.0.1:9/v1", "model": "served"}
    with run_service(engine_endpoints={"gpu-1": endpoint}) as running:
        report = running.finished_report(engine={"kind": "vllm-server"}, engine_endpoint="gpu-1")
        engine = running.client.get(f"/v1/reports/{report}").json()["request"]["engine"]
        assert engine["server_url"] == "http://127.0.0.1:9/v1"
        assert engine["server_model"] == "served"


def test_the_database_is_as_durable_as_promised(running: Any) -> None:
    with sqlite3.connect(running.data_dir / "driftscope.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    with running.service.database.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


def test_the_stored_request_is_what_the_probe_got(running: Any) -> None:
    job_id = running.start("succeed")
    running.wait(job_id)
    folder = running.data_dir / "jobs" / job_id / "attempt-1"
    request = json.loads((folder / "request.json").read_text())
    assert request["kind"] == "paired"
    assert request["model_path"] is None
    assert "engine_endpoint" not in request["request"]
