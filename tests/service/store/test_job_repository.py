"""The job table against a model of it: any order of events, two owners, at any moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, select

from driftscope_probes.progress import Progress
from driftscope_service.jobs import claims as claims_module
from driftscope_service.jobs.claims import Claim, ClaimRepository, Fence, LeaseLost, Owner
from driftscope_service.jobs.job import AttemptOutcome, Job, JobError, JobState
from driftscope_service.jobs.retries import MOST_WAIT_S, RETRIES
from driftscope_service.jobs.store import JobRepository
from driftscope_service.store.database import Database
from driftscope_service.store.tables import job_attempts, jobs

FATAL = JobError("EngineError", "it failed.", "repair it.")
#: No wait before the next attempt: the model needs no clock.
PASSING = JobError("ServiceStopped", "it was stopped.", "start it again.")
MOST = RETRIES["ServiceStopped"].most
OWNERS = [Owner(f"instance_{name}", "here", "local") for name in "ab"]
ENDS = ("succeed", "cancelled", "fatal", "passing", "progress")


@dataclass
class Expected:
    state: JobState = JobState.QUEUED
    attempt: int = 0
    owner: str | None = None
    cancel: bool = False
    stopped: int = 0  # attempts that ended with PASSING
    outcomes: list[AttemptOutcome | None] = field(default_factory=list)

    def end(self, state: JobState, outcome: AttemptOutcome) -> None:
        self.state, self.owner = state, None
        self.outcomes[-1] = outcome

    def end_without_report(self, error: JobError, outcome: AttemptOutcome) -> None:
        self.stopped += error is PASSING
        again = error is PASSING and self.stopped <= MOST
        state = JobState.QUEUED if again else JobState.FAILED
        self.end(JobState.CANCELLED if self.cancel else state, outcome)


class JobTable(RuleBasedStateMachine):
    """`model` is what the table must say; every rule does the same to both."""

    known: Bundle[str] = Bundle("known")
    #: Also of attempts that have long ended: their owners may not know.
    fences: Bundle[Fence] = Bundle("fences")

    database: Database

    def __init__(self) -> None:
        super().__init__()
        with self.database.write() as connection:
            connection.execute(job_attempts.delete())
            connection.execute(jobs.delete())
        self.model: dict[str, Expected] = {}  # in order of arrival
        self.finished: dict[str, Job] = {}

    @contextmanager
    def write(self) -> Iterator[ClaimRepository]:
        with self.database.write() as connection:
            yield ClaimRepository(connection)

    @rule(target=known)
    def add(self) -> str:
        with self.database.write() as connection:
            job = JobRepository(connection).add("paired", "m", {})
        self.model[job.id] = Expected()
        return job.id

    @rule(target=fences, owner=st.sampled_from(OWNERS))
    def claim(self, owner: Owner) -> Fence:
        with self.write() as claims:
            claim = claims.claim_next(owner)
        waiting = [name for name, job in self.model.items() if job.state is JobState.QUEUED]
        if claim is None:
            assert not waiting
            return Fence("nothing", 1, owner.instance)
        expected = self.model[claim.job.id]
        assert claim.job.id == waiting[0] and claim.job.started_at is not None
        expected.state, expected.owner = JobState.RUNNING, owner.instance
        expected.attempt += 1
        expected.outcomes.append(None)
        assert claim.fence == Fence(claim.job.id, expected.attempt, owner.instance)
        return claim.fence

    @rule(job_id=known)
    def cancel(self, job_id: str) -> None:
        with self.database.write() as connection:
            JobRepository(connection).request_cancel(job_id)
        expected = self.model[job_id]
        if expected.state is JobState.QUEUED:
            expected.state, expected.cancel = JobState.CANCELLED, True
        elif expected.state is JobState.RUNNING:
            expected.cancel = True

    @rule(fence=fences)
    def heartbeat(self, fence: Fence) -> None:
        with self.write() as claims:
            assert claims.renew([fence]) == ([] if self.holds(fence) else [fence])

    @rule(fence=fences, end=st.sampled_from(ENDS), fraction=st.floats(-1, 2))
    def write_of_an_owner(self, fence: Fence, end: str, fraction: float) -> None:
        """Refused, and without effect, where the fence is stale."""
        try:
            with self.write() as claims:
                self.change(claims, fence, end, fraction)
        except LeaseLost:
            assert not self.holds(fence)
            return
        assert self.holds(fence)
        expected = self.model[fence.job_id]
        if end == "succeed":
            expected.end(JobState.SUCCEEDED, AttemptOutcome.SUCCEEDED)
        elif end == "cancelled":
            expected.end(JobState.CANCELLED, AttemptOutcome.CANCELLED)
        elif end != "progress":
            error = FATAL if end == "fatal" else PASSING
            expected.end_without_report(error, AttemptOutcome.FAILED)

    def change(self, claims: ClaimRepository, fence: Fence, end: str, fraction: float) -> None:
        if end == "progress":
            claims.set_progress(fence, Progress("s\x00" * 300, fraction, "d" * 300))
        elif end == "succeed":
            claims.succeed(fence)
        elif end == "cancelled":
            claims.cancelled(fence, "a log")
        else:
            claims.end_without_report(fence, FATAL if end == "fatal" else PASSING)

    @rule(owner=st.sampled_from([owner.instance for owner in OWNERS]))
    def take_over_all_of(self, owner: str) -> None:
        """As at a restart, or when its leases have expired."""
        with self.database.read() as connection:
            held = ClaimRepository(connection).held()
        running = {name for name, job in self.model.items() if job.state is JobState.RUNNING}
        assert {lease.fence.job_id for lease in held} == running
        for lease in held:
            assert self.holds(lease.fence)
            if lease.fence.owner == owner:
                with self.write() as claims:
                    claims.end_without_report(
                        lease.fence, PASSING, AttemptOutcome.LOST, unless_renewed_since=lease
                    )
                self.model[lease.fence.job_id].end_without_report(PASSING, AttemptOutcome.LOST)

    def holds(self, fence: Fence) -> bool:
        expected = self.model.get(fence.job_id)
        return (
            expected is not None
            and expected.state is JobState.RUNNING
            and (expected.attempt, expected.owner) == (fence.attempt, fence.owner)
        )

    @invariant()
    def the_table_says_what_the_model_says(self) -> None:
        with self.database.read() as connection:
            found = JobRepository(connection).page(1000)
            counts = JobRepository(connection).counts()
        found.reverse()
        assert {job.id: job.state for job in found} == {
            name: expected.state for name, expected in self.model.items()
        }
        assert [job.id for job in found] == list(self.model)
        assert sum(counts.values()) == len(self.model)
        for job in found:
            expected = self.model[job.id]
            assert [one.outcome for one in job.attempts] == expected.outcomes
            assert [one.attempt for one in job.attempts] == list(range(1, expected.attempt + 1))
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


@pytest.mark.parametrize("address", ["sqlite"], indirect=True)
def test_the_model_catches_a_fence_that_does_not_hold(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: a write that looks at the state of a job alone."""

    def careless(self: ClaimRepository, fence: Fence, seen: object = None, **values: Any) -> None:
        running = jobs.update().where(jobs.c.id == fence.job_id, jobs.c.state == "running")
        if self._connection.execute(running.values(**values)).rowcount != 1:
            raise LeaseLost

    monkeypatch.setattr(ClaimRepository, "_change", careless)
    JobTable.database = database
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            JobTable,
            settings=settings(
                max_examples=300,
                stateful_step_count=30,
                deadline=None,
                # To be found is enough.
                phases=[Phase.generate],
                report_multiple_bugs=False,
                database=None,
            ),
        )


def claimed(connection: Connection, owner: Owner = OWNERS[0]) -> Claim:
    claim = ClaimRepository(connection).claim_next(owner)
    assert claim is not None
    return claim


@pytest.mark.parametrize("end", ["succeed", "cancelled"])
def test_a_finished_job_cannot_end_again(database: Database, end: str) -> None:
    with database.write() as connection:
        JobRepository(connection).add("paired", "m", {})
        fence = claimed(connection).fence
        claims = ClaimRepository(connection)
        assert claims.end_without_report(fence, FATAL).state is JobState.FAILED
        with pytest.raises(LeaseLost, match=fence.job_id):
            getattr(claims, end)(fence)


def test_each_job_is_claimed_once_by_many(database: Database) -> None:
    with database.write() as connection:
        for _ in range(20):
            JobRepository(connection).add("paired", "m", {})
    taken: list[Fence] = []

    def work(owner: Owner) -> None:
        while True:
            with database.write() as connection:
                claim = ClaimRepository(connection).claim_next(owner)
            if claim is None:
                return
            taken.append(claim.fence)

    threads = [threading.Thread(target=work, args=(owner,)) for owner in OWNERS * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({fence.job_id for fence in taken}) == len(taken) == 20


def test_a_job_that_another_transaction_claims_is_passed_over(database: Database) -> None:
    """On PostgreSQL without the writers' turns: the row's own lock must do."""
    if "postgresql" not in str(database.dialect):
        pytest.skip("on SQLite a write transaction is alone")
    with database.write() as connection:
        first, second = (JobRepository(connection).add("paired", "m", {}) for _ in range(2))
    with database.read() as one, database.read() as other:
        assert claimed(one, OWNERS[0]).job.id == first.id
        assert claimed(other, OWNERS[1]).job.id == second.id
        other.commit()
        one.commit()


def test_a_renewal_in_between_keeps_the_lease(database: Database) -> None:
    with database.write() as connection:
        JobRepository(connection).add("paired", "m", {})
        fence = claimed(connection).fence
        claims = ClaimRepository(connection)
        (seen,) = claims.held()
        assert claims.renew([fence]) == []
        with pytest.raises(LeaseLost):
            claims.end_without_report(fence, PASSING, unless_renewed_since=seen)
        (now,) = claims.held()
        assert now.expires_at is not None and seen.expires_at is not None
        assert now.expires_at > seen.expires_at and not now.expired


def test_a_job_of_a_version_without_leases_is_tried_again(database: Database) -> None:
    with database.write() as connection:
        job = JobRepository(connection).add("paired", "m", {})
        connection.execute(jobs.update().values(state="running", started_at=job.created_at))
        (lease,) = ClaimRepository(connection).held()
        assert lease.expired and lease.fence.owner is None
        after = ClaimRepository(connection).end_without_report(
            lease.fence, PASSING, unless_renewed_since=lease
        )
        assert (after.state, after.attempts) == (JobState.QUEUED, ())


def test_a_retry_waits_for_its_moment_whatever_the_clock_does(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    monkeypatch.setattr(claims_module, "database_now", lambda _: now)
    with database.write() as connection:
        JobRepository(connection).add("paired", "m", {})
        claims = ClaimRepository(connection)
        after = claims.end_without_report(
            claimed(connection).fence, JobError("NodeLost", "m", "r"), log_tail="last words"
        )
        assert after.not_before is not None and after.not_before > now
        assert JobRepository(connection).log_tail(after.id) == "last words"
        assert not claims.anything_due() and claims.claim_next(OWNERS[0]) is None
        now = after.not_before
        assert claims.anything_due()
        # Set back by a day, the clock must not hold it for a day.
        now -= timedelta(days=1)
        assert timedelta(seconds=MOST_WAIT_S) < timedelta(days=1)
        assert claims.anything_due()


def test_no_other_attempt_once_their_time_is_spent(database: Database) -> None:
    with database.write() as connection:
        JobRepository(connection).add("paired", "m", {})
        fence = claimed(connection).fence
        connection.execute(
            job_attempts.update().values(started_at=datetime.now(UTC) - timedelta(hours=1))
        )
        job = ClaimRepository(connection).end_without_report(
            fence, PASSING, total_time_limit_s=3600
        )
        assert (job.state, job.error) == (JobState.FAILED, PASSING)


def test_a_deleted_job_takes_its_attempts_with_it(database: Database) -> None:
    with database.write() as connection:
        JobRepository(connection).add("paired", "m", {})
        claim = claimed(connection)
        ClaimRepository(connection).cancelled(claim.fence)
        JobRepository(connection).remove(claim.job.id)
        assert connection.execute(select(job_attempts)).all() == []


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
