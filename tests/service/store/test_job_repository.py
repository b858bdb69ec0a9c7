"""The job table against a model of it: any order of events, at any moment."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from driftscope_probes.progress import Progress
from driftscope_service.jobs.job import Job, JobError, JobState
from driftscope_service.jobs.store import JobRepository
from driftscope_service.store.database import Database
from driftscope_service.store.tables import jobs

FAILURE = JobError("EngineError", "it failed.", "repair it.")
FINAL = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobTable(RuleBasedStateMachine):
    """`model` is what the table must say; every rule does the same to both."""

    known: Bundle[str] = Bundle("known")
    running: Bundle[str] = Bundle("running")

    database: Database

    def __init__(self) -> None:
        super().__init__()
        with self.database.write() as connection:
            connection.execute(jobs.delete())
        self.model: dict[str, JobState] = {}  # in order of arrival
        self.finished: dict[str, Job] = {}

    def change(self, name: str, *arguments: Any) -> Any:
        with self.database.write() as connection:
            return getattr(JobRepository(connection), name)(*arguments)

    @rule(target=known)
    def add(self) -> str:
        job: Job = self.change("add", "paired", "m", {})
        self.model[job.id] = JobState.QUEUED
        return job.id

    @rule(target=running)
    def claim(self) -> str:
        job = self.change("claim_next")
        waiting = [job_id for job_id, state in self.model.items() if state is JobState.QUEUED]
        if job is None:
            assert not waiting
            return "nothing"
        assert job.id == waiting[0] and job.started_at is not None
        self.model[job.id] = JobState.RUNNING
        return str(job.id)

    @rule(job_id=known)
    def cancel(self, job_id: str) -> None:
        self.change("request_cancel", job_id)
        if self.model[job_id] is JobState.QUEUED:
            self.model[job_id] = JobState.CANCELLED

    @rule(job_id=known, fraction=st.floats(-1, 2))
    def progress(self, job_id: str, fraction: float) -> None:
        self.change("set_progress", job_id, Progress("s" * 300, fraction, "d" * 300))

    @rule(job_id=consumes(running), state=st.sampled_from(FINAL))
    def finish(self, job_id: str, state: JobState) -> None:
        if self.model.get(job_id) is not JobState.RUNNING:
            return
        if state is JobState.SUCCEEDED:
            self.change("succeed", job_id)
        elif state is JobState.FAILED:
            self.change("fail", job_id, FAILURE)
        else:
            self.change("cancelled", job_id)
        self.model[job_id] = state

    @rule()
    def restart(self) -> None:
        with self.database.read() as connection:
            before = {job_id: JobRepository(connection).get(job_id) for job_id in self.model}
        left = self.change("finish_unfinished", lambda _: FAILURE)
        unfinished = [job_id for job_id, state in self.model.items() if not state.finished]
        assert [job.id for job in left] == unfinished
        for job_id in unfinished:
            job = before[job_id]
            assert job is not None
            asked = job.cancel_requested_at is not None
            self.model[job_id] = JobState.CANCELLED if asked else JobState.FAILED

    @invariant()
    def the_table_says_what_the_model_says(self) -> None:
        with self.database.read() as connection:
            found = JobRepository(connection).page(1000)
            counts = JobRepository(connection).counts()
        assert {job.id: job.state for job in reversed(found)} == self.model
        assert [job.id for job in reversed(found)] == list(self.model)
        assert sum(counts.values()) == len(self.model)
        for job in found:
            assert (job.finished_at is not None) == job.state.finished
            assert (job.error is not None) == (job.state is JobState.FAILED)
            assert 0 <= job.progress.fraction <= 1
            if job.state.finished:
                assert self.finished.setdefault(job.id, job) == job  # never changes again


def test_any_order_of_events(database: Database) -> None:
    JobTable.database = database
    run_state_machine_as_test(
        JobTable,
        settings=settings(max_examples=15, stateful_step_count=20, deadline=None),
    )


@pytest.mark.parametrize("end", ["succeed", "cancelled"])
def test_a_finished_job_cannot_end_again(database: Database, end: str) -> None:
    with database.write() as connection:
        table = JobRepository(connection)
        job = table.add("paired", "m", {})
        table.claim_next()
        table.fail(job.id, FAILURE)
        with pytest.raises(AssertionError, match=job.id):
            getattr(table, end)(job.id)


def test_a_waiting_job_cannot_succeed(database: Database) -> None:
    with database.write() as connection:
        job = JobRepository(connection).add("paired", "m", {})
        with pytest.raises(AssertionError, match="cannot become succeeded"):
            JobRepository(connection).succeed(job.id)


def test_an_exception_rolls_everything_back(database: Database) -> None:
    with pytest.raises(RuntimeError):
        with database.write() as connection:
            JobRepository(connection).add("paired", "m", {})
            raise RuntimeError
    with database.read() as connection:
        assert JobRepository(connection).page(10) == []


def test_times_come_back_with_their_zone(database: Database) -> None:
    with database.write() as connection:
        added = JobRepository(connection).add("paired", "m", {})
    assert added.created_at.utcoffset() is not None
