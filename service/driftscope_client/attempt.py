"""The start of training that pushes belong to, opened at the service with the first of them.

In: an id, or what the launcher says of this start. Out: the parameter that pushes carry. All ranks
of one start need the same id; where none is known, the service finds the attempt by the steps.
"""

from __future__ import annotations

import json
import logging
import operator
import os
import re
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from driftscope_client.errors import DriftscopeError
from driftscope_client.transport import JSON, RequestBody, Transport

ATTEMPT_VARIABLE = "DRIFTSCOPE_ATTEMPT"
ATTEMPT_ID = re.compile(r"[!-~]{1,128}")
#: Slurm numbers steps that srun starts from 0; from here on they are a job's own script and the
#: like, in which training may be started many times.
FIRST_SLURM_SCRIPT = 0xFFFFFFF0
#: What is not a whole number is refused as one below the first step is.
NO_STEP = -1
_log = logging.getLogger("driftscope_client")


@dataclass(frozen=True, slots=True)
class Start:
    """A start of training. `id` None: the service finds out by the steps."""

    id: str | None
    resumed_from: int | None = None  # the last step that still holds; None: that before the first
    of_launch: bool = False  # the id is the launcher's, who may use it again
    shared: bool = True  # every rank has the same id

    @staticmethod
    def chosen(attempt: str | None, resumed_from: int | None) -> Start:
        """From what is given, the environment and the launcher, in this order. Raises
        DriftscopeError for what the service does not take."""
        attempt = attempt or os.environ.get(ATTEMPT_VARIABLE) or None
        start = Start.named(attempt, resumed_from)
        if attempt is not None:
            return start
        launch = launch_id(os.environ)
        if launch is not None:
            return Start(launch, start.resumed_from, of_launch=True)
        if start.resumed_from is not None:
            return Start(str(uuid.uuid4()), start.resumed_from, shared=False)
        return start

    @staticmethod
    def named(attempt: str | None, resumed_from: int | None) -> Start:
        """Raises DriftscopeError for what the service does not take."""
        given = resumed_from
        if attempt is not None and not (isinstance(attempt, str) and ATTEMPT_ID.fullmatch(attempt)):
            raise DriftscopeError(
                f"the attempt {attempt!r} is not accepted.",
                remedy="give a text of at most 128 visible ASCII characters, no spaces (attempt=…, "
                f"--attempt or {ATTEMPT_VARIABLE}).",
            )
        try:
            # A numpy integer is a step too, and JSON has none.
            resumed_from = None if resumed_from is None else operator.index(resumed_from)
        except TypeError:
            resumed_from = NO_STEP
        if resumed_from is not None and resumed_from < 0:
            raise DriftscopeError(
                f"resumed_from {given!r} is no step.",
                remedy="give the last step that still holds, or leave it out: then it is the step "
                "before the first that is pushed.",
            )
        return Start(attempt, resumed_from)


def launch_id(environment: Mapping[str, str]) -> str | None:
    """What the processes of one launch have in common, and no other launch has; None: unknown."""
    rendezvous = environment.get("TORCHELASTIC_RUN_ID", "none")
    if rendezvous not in ("", "none"):  # torchrun's default
        restart = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
        # Many give the same --rdzv-id every time; the port is chosen anew.
        return _visible(f"torchrun-{rendezvous}-{environment.get('MASTER_PORT', '')}-{restart}")
    job, step = environment.get("SLURM_JOB_ID"), environment.get("SLURM_STEP_ID", "")
    if job and step.isdecimal() and int(step) < FIRST_SLURM_SCRIPT:
        return _visible(f"slurm-{job}.{step}.{environment.get('SLURM_RESTART_COUNT', '0')}")
    return None


def _visible(text: str) -> str:
    return re.sub(r"[^!-~]", "_", text)[:128]


class PushedAttempt:
    """Of one client. May be used from several threads."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._id = start.id  # None once the service does not know attempts, or has another
        self._began_at = datetime.now(timezone.utc)
        self._opened = False
        self._lock = threading.Lock()

    @property
    def params(self) -> dict[str, str]:
        """Of a request that opens none."""
        return {"attempt": self._id} if self._id is not None and self._opened else {}

    def opened(self, link: Transport, run: str, step: int, *, of_shards: bool) -> dict[str, str]:
        """Parameters for a push of `step`. Raises DriftscopeError."""
        with self._lock:
            if self._id is None or self._opened:
                return self.params
            if of_shards and not self._start.shared:
                _log.warning(
                    "resumed_from of run %s is not used: its shards need one attempt that all "
                    "ranks know. Give the same attempt=… to each (or %s).",
                    run,
                    ATTEMPT_VARIABLE,
                )
                self._id = None
                return {}
            try:
                link.post(f"/v1/runs/{run}/attempts", {}, self._body(step))
                self._opened = True
            except DriftscopeError as error:
                if error.status not in (404, 405):
                    raise
                self._id = None  # a service of before attempts
            return self.params

    def to_be_sent_anew(self, error: DriftscopeError) -> bool:
        """Whether a push that was refused has to be sent once more, with what opened() says."""
        with self._lock:
            if self._id is None:
                return False
            if error.status == 404:  # the run was deleted, attempts and all
                self._opened = False
                return True
            if error.status == 409 and self._start.of_launch:
                # Started twice by one launcher: by the steps the service tells them apart.
                self._id = None
                return True
            return False

    def _body(self, step: int) -> RequestBody:
        known = self._start.resumed_from
        resumed_from = step - 1 if known is None else known
        value = {
            "id": self._id,
            "started_at": self._began_at.isoformat(),
            "resumed_from": resumed_from if resumed_from >= 0 else None,
        }
        data = json.dumps(value).encode()
        return RequestBody(lambda: [data], len(data), JSON)
