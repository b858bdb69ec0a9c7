"""The thread that looks after the tokens of accepted steps: raw upload → Parquet, and retention.

It works from the step table alone: what a killed service left undone is done after the next start.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from sqlalchemy.exc import OperationalError

from driftscope_probes.push import PushError, StepFormat
from driftscope_service.ingest.analysis import StepPart, whole_step
from driftscope_service.store.database import Database
from driftscope_service.store.shard_repository import ShardRepository
from driftscope_service.store.step_files import StepFiles
from driftscope_service.store.step_repository import StepRepository, StepTokens
from driftscope_service.store.token_files import write_tokens
from driftscope_service.store.token_retention import KeptTokens, tokens_to_drop

#: An accepted step is announced at once; this is for a busy database and for open steps.
IDLE_POLL_S = 60.0
_log = logging.getLogger("driftscope")


class TokenKeeper:
    def __init__(
        self,
        database: Database,
        files: StepFiles,
        *,
        ring_steps: int,
        budget_bytes: int,
        open_step_s: float,
    ) -> None:
        self._database = database
        self._files = files
        self._ring_steps = ring_steps
        self._budget_bytes = budget_bytes
        self._open_step = timedelta(seconds=open_step_s)
        self._announced = threading.Event()
        self._stopping = threading.Event()
        self._unreadable: set[int] = set()
        self._thread = threading.Thread(target=self._work, name="token-keeper", daemon=True)

    def start(self) -> None:
        self._announced.set()
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def announce(self) -> None:
        """A step has been accepted."""
        self._announced.set()

    def stop(self) -> None:
        """Waits for a conversion under way. May be called twice."""
        self._stopping.set()
        self._announced.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._announced.wait(IDLE_POLL_S)
            self._announced.clear()
            try:
                self._tidy()
            except (OperationalError, OSError) as error:
                _log.error("tokens cannot be put in order, and wait: %s", error)
            except Exception:
                # A thread that ends would let raw uploads fill the disk.
                _log.exception("the token keeper failed")

    def _tidy(self) -> None:
        self._abandon_open_steps()
        while not self._stopping.is_set():
            kept = self._drop(self._kept())
            waiting = [
                tokens
                for tokens in kept
                if tokens.raw_files is not None and tokens.number not in self._unreadable
            ]
            if not waiting:
                return
            self._convert(waiting[0])

    def _kept(self) -> list[StepTokens]:
        with self._database.read() as connection:
            return StepRepository(connection).kept()

    def _abandon_open_steps(self) -> None:
        with self._database.write() as connection:
            left = ShardRepository(connection).abandon(datetime.now(UTC) - self._open_step)
        self._files.remove(left)

    def _drop(self, kept: Sequence[StepTokens]) -> list[StepTokens]:
        """Apply retention; returns what stays. A drop comes before a conversion in vain."""
        of = {(tokens.run, tokens.step): tokens for tokens in kept}
        candidates = [
            KeptTokens(one.run, one.step, one.kept_bytes, one.received_at, one.crossed)
            for one in kept
        ]
        for one in tokens_to_drop(candidates, self._ring_steps, self._budget_bytes):
            tokens = of.pop((one.run, one.step))
            with self._database.write() as connection:
                StepRepository(connection).dropped(tokens.number)
            self._files.remove(tokens.files)
        return list(of.values())

    def _convert(self, tokens: StepTokens) -> None:
        name = self._files.new_tokens_file()
        try:
            size = write_tokens(self._files.path(name), whole_step(self._parts(tokens)))
        except PushError as error:
            # It was readable when it was accepted: the disk is damaged, or somebody changed it.
            _log.error("run %s step %d cannot be read: %s", tokens.run, tokens.step, error)
            self._unreadable.add(tokens.number)
            return
        try:
            with self._database.write() as connection:
                StepRepository(connection).converted(tokens.number, name, size)
        except Exception:
            self._files.remove([name])
            raise
        self._files.remove(tokens.files)

    def _parts(self, tokens: StepTokens) -> list[StepPart]:
        return [
            StepPart(self._path(raw["file"]), cast(StepFormat, raw["format"]))
            for raw in tokens.raw_files or ()
        ]

    def _path(self, name: str) -> Path:
        return self._files.path(name)
