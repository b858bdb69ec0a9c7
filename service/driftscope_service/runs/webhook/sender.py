"""The thread that sends notices: one process of the service at a time, apart from every push.

Of several replicas the one with the lease sends. An attempt is noted before it is made, so that who
takes over in between does not send the same again at once; a process that is killed within one
leaves a notice that is sent once more, under the same id.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from sqlalchemy.exc import OperationalError

from driftscope_service.runs.webhook.body import Webhook
from driftscope_service.runs.webhook.notices import Notice, NoticeRepository, due
from driftscope_service.runs.webhook.post import Refused, posted
from driftscope_service.store.database import Database
from driftscope_service.store.leases import Turn

_log = logging.getLogger("driftscope")

Result = Literal["delivered", "retried", "failed", "dropped"]
LEASE: Final = "webhook"
#: An attempt takes a third of it at most (post.py); renewed before each.
LEASE_S: Final = 60.0
#: A change is announced at once; this is for retries, and for what other processes noted.
POLL_S: Final = 5.0
#: 5, 10, 20 … seconds, ten minutes in all: a receiver that is restarted is back by then.
ATTEMPTS: Final = 8
FIRST_WAIT_S: Final = 5.0
#: A run whose answer changes with every step is told of once in this time, with the newest.
QUIET_S: Final = 60.0
#: News of yesterday is none, where the webhook was off for a while.
EXPIRES_AFTER: Final = timedelta(days=1)


class WebhookCounts:
    """Of this process since its start, each at 0 from the start."""

    def __init__(self) -> None:
        self.results: Counter[Result] = Counter(
            {"delivered": 0, "retried": 0, "failed": 0, "dropped": 0}
        )


class WebhookSender:
    def __init__(
        self,
        database: Database,
        webhook: Webhook | None,
        instance: str,
        *,
        first_wait_s: float = FIRST_WAIT_S,
        quiet_s: float = QUIET_S,
    ) -> None:
        """Starts nothing. webhook: None where the operator set none."""
        self.counts = WebhookCounts()
        self._database = database
        self._webhook = webhook
        self._turn = Turn(database, LEASE, instance, LEASE_S)
        self._first_wait_s = first_wait_s
        self._quiet_s = quiet_s
        self._sent_at: dict[str, float] = {}  # by run, monotonic
        self._announced = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)

    @property
    def on(self) -> bool:
        return self._webhook is not None

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        if self.on:
            self._thread.start()

    def announce(self, dropped: int) -> None:
        """A change may have been noted, for which `dropped` older ones made room."""
        self.counts.results["dropped"] += dropped
        self._announced.set()

    def stop(self) -> None:
        """Waits for an attempt under way, not for those to come. May be called twice."""
        self._stopping.set()
        self._announced.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self._send_due()
            except OperationalError as error:
                _log.warning("notices of the webhook wait for the database: %s", error.orig)
            except Exception:
                # A thread that ends would tell nobody of anything again.
                _log.exception("the webhook failed")
            self._announced.wait(min(POLL_S, self._first_wait_s))
            self._announced.clear()
        self._turn.release()

    def _send_due(self) -> None:
        with self._database.read() as connection:
            waiting = NoticeRepository(connection).waiting()
        if not waiting or not self._turn.taken():
            return
        for notice in due(waiting, datetime.now(UTC)):
            if self._stopping.is_set() or not self._turn.taken():
                return
            if not self._quiet(notice):
                self._send(notice)

    def _quiet(self, notice: Notice) -> bool:
        """Whether its run was told of just now."""
        last = self._sent_at.get(notice.run)
        return last is not None and time.monotonic() - last < self._quiet_s

    def _send(self, notice: Notice) -> None:
        now = datetime.now(UTC)
        if now - notice.created_at > EXPIRES_AFTER:
            return self._give_up(notice, "dropped", "nobody took it within a day")
        with self._database.write() as connection:
            mine = self._turn.still_mine(connection) and NoticeRepository(connection).begin(
                notice.number, notice.attempts, now + timedelta(seconds=LEASE_S)
            )
        if not mine:
            return
        with self._database.read() as connection:
            # What it says may have changed until the attempt was noted, and no longer.
            found = [one for one in NoticeRepository(connection).waiting() if one.id == notice.id]
        if found:
            self._settle(found[0], self._attempt(found[0]))

    def _settle(self, notice: Notice, reason: Refused | None) -> None:
        """reason: None where it was taken."""
        if reason is None:
            self._sent_at[notice.run] = time.monotonic()
            self._forget_old()
            self._remove(notice, "delivered")
        elif not reason.again or notice.attempts >= ATTEMPTS:
            self._give_up(notice, "failed", reason.words)
        else:
            self.counts.results["retried"] += 1
            _log.info("the webhook was not taken, and is tried again: %s", reason.words)
            wait_s = self._wait_s(notice.attempts) if reason.wait_s is None else reason.wait_s
            with self._database.write() as connection:
                NoticeRepository(connection).wait_until(
                    notice.number, datetime.now(UTC) + timedelta(seconds=wait_s)
                )

    def _give_up(self, notice: Notice, result: Result, words: str) -> None:
        _log.warning(
            "nobody was told that run %s is %s since step %d (notice %s, %d attempts): %s",
            *(notice.run, notice.verdict, notice.step, notice.id, notice.attempts, words),
        )
        self._remove(notice, result)

    def _remove(self, notice: Notice, result: Result) -> None:
        self.counts.results[result] += 1
        with self._database.write() as connection:
            NoticeRepository(connection).remove(notice.number)

    def _wait_s(self, attempt: int) -> float:
        """After so many attempts; apart from those of other senders to the same receiver."""
        doubled = self._first_wait_s * 2.0 ** (attempt - 1)
        return float(doubled * random.uniform(0.8, 1.2))

    def _forget_old(self) -> None:
        now = time.monotonic()
        old = [run for run, at in self._sent_at.items() if now - at > self._quiet_s]
        for run in old:
            del self._sent_at[run]

    def _attempt(self, notice: Notice) -> Refused | None:
        assert self._webhook is not None
        return asyncio.run(posted(notice, self._webhook))
