"""Child processes: start one, hear its progress, take its result or explain its end.

Also Mailbox, the folder through which a parent and a child that stays exchange messages.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftscope_probes.errors import Cancelled, ProbeError
from driftscope_probes.progress import Progress, ProgressSink, discard

_PROGRESS_FD = "DRIFTSCOPE_PROGRESS_FD"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: Enough of the log to hold a Python traceback with a chained cause.
LOG_TAIL_BYTES = 16_384
#: An engine writes nothing after SIGTERM that we need; a GPU driver may take seconds to let go.
TERMINATE_GRACE_S = 5.0

Runner = Callable[[dict[str, Any], Path, ProgressSink], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Crash:
    """How a child ended that reported neither a result nor an error of its own."""

    module: str
    returncode: int  # negative: the signal that killed it
    log_tail: str

    @property
    def signal_name(self) -> str | None:
        if self.returncode >= 0:
            return None
        return signal.Signals(-self.returncode).name

    @property
    def last_line(self) -> str:
        lines = [line.strip() for line in self.log_tail.splitlines() if line.strip()]
        return lines[-1] if lines else "(no output)"


ExplainCrash = Callable[[Crash], ProbeError]


class ChildProcess:
    """One running child. `wait()` returns its result or raises the error it reported."""

    def __init__(
        self,
        module: str,
        request: Mapping[str, Any],
        workdir: Path,
        *,
        explain_crash: ExplainCrash,
        on_progress: ProgressSink = discard,
        environment: Mapping[str, str] | None = None,
        new_session: bool = False,
        python: str = sys.executable,
    ) -> None:
        self.module = module
        self.workdir = workdir
        self._explain_crash = explain_crash
        self._on_progress = on_progress
        self._new_session = new_session
        self._cancelled = threading.Event()
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "request.json").write_text(json.dumps(dict(request)), encoding="utf-8")
        self._start(python, environment or {})

    def _start(self, python: str, environment: Mapping[str, str]) -> None:
        read_fd, write_fd = os.pipe()
        self._progress_pipe = os.fdopen(read_fd, encoding="utf-8", errors="replace")
        try:
            with open(self.workdir / "log.txt", "wb") as log:
                self._process = subprocess.Popen(
                    [python, "-m", self.module, str(self.workdir)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment, _PROGRESS_FD: str(write_fd)},
                    pass_fds=(write_fd,),
                    start_new_session=self._new_session,
                )
        except OSError:
            self._progress_pipe.close()
            raise
        finally:
            os.close(write_fd)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> dict[str, Any]:
        """Forward progress until the child ends; its result, or raise what went wrong."""
        try:
            with self._progress_pipe as lines:
                for line in lines:
                    self._on_progress(_parse_progress(line))
            returncode = self._process.wait()
        except BaseException:
            # Ctrl-C or a failing sink: no engine may outlive the one who asked for it.
            self.terminate()
            raise
        if self._cancelled.is_set():
            raise Cancelled("the run was cancelled.", remedy="start it again when you want it.")
        return self._outcome(returncode)

    def _outcome(self, returncode: int) -> dict[str, Any]:
        error_file, result_file = self.workdir / "error.json", self.workdir / "result.json"
        if error_file.exists():
            raise ProbeError.from_dict(json.loads(error_file.read_text(encoding="utf-8")))
        if returncode == 0 and result_file.exists():
            result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
            return result
        raise self._explain_crash(Crash(self.module, returncode, self.log_tail()))

    def log_tail(self) -> str:
        with open(self.workdir / "log.txt", "rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
            return log.read().decode("utf-8", errors="replace")

    def cancel(self) -> None:
        """Stop the child from another thread; `wait()` then raises Cancelled."""
        self._cancelled.set()
        self.terminate()

    def terminate(self) -> None:
        """SIGTERM, a grace period, SIGKILL: to the whole group where the child leads one."""
        self._send(signal.SIGTERM)
        try:
            self._process.wait(TERMINATE_GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        # Even when the leader is gone, a grandchild of its group may still hold memory.
        self._send(signal.SIGKILL)
        self._process.wait()

    def _send(self, number: signal.Signals) -> None:
        try:
            if self._new_session:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        except ProcessLookupError:
            return


def _parse_progress(line: str) -> Progress:
    fields = json.loads(line)
    return Progress(fields["stage"], float(fields["fraction"]), fields.get("detail", ""))


def child_main(run: Runner) -> None:
    """Entry of a child: carry out `request.json` of the folder named in argv, then leave at once.

    A ProbeError becomes `error.json`. Any other exception is a crash: its traceback goes to the
    log, from which the parent explains it.
    """
    _die_with_parent()
    workdir = Path(sys.argv[1])
    request = json.loads((workdir / "request.json").read_text(encoding="utf-8"))
    progress_fd = int(os.environ[_PROGRESS_FD])
    # A process that we start must not hold the pipe open on which the parent waits for our end.
    os.set_inheritable(progress_fd, False)
    with os.fdopen(progress_fd, "w", encoding="utf-8") as pipe:
        try:
            result = run(request, workdir, _pipe_sink(pipe.write, pipe.flush))
        except ProbeError as error:
            _write_json(workdir / "error.json", error.to_dict())
            _leave(1)
        _write_json(workdir / "result.json", result)
        _leave(0)


def _die_with_parent() -> None:
    """A killed parent must leave no engine behind (Linux only; elsewhere a no-op)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _pipe_sink(write: Callable[[str], Any], flush: Callable[[], None]) -> ProgressSink:
    def sink(progress: Progress) -> None:
        write(json.dumps(progress.to_dict()) + "\n")
        flush()

    return sink


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    # allow_nan=False: NaN is not JSON; a value that is undefined must be None with a reason.
    partial.write_text(json.dumps(dict(value), allow_nan=False), encoding="utf-8")
    partial.replace(path)


def _leave(code: int) -> None:
    """Exit without interpreter teardown: engines take seconds to dismantle what the OS frees."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


#: Far below the time of one engine step, and no load worth the name.
POLL_S = 0.005


@dataclass(slots=True)
class Mailbox:
    """One side of it; both count along. The one mutable value is the number of the next letter."""

    folder: Path
    number: int = 0

    def ask(self, question: Mapping[str, Any], still_there: Callable[[], bool]) -> dict[str, Any]:
        """The answer. Raises ConnectionError when `still_there` says no and there is none."""
        number = self._next()
        _write(self._question(number), question)
        answer = self._answer(number)
        while not answer.exists():
            # Asked first: an answer may have been left on the way out.
            if not still_there() and not answer.exists():
                raise ConnectionError("the other side ended without an answer")
            time.sleep(POLL_S)
        return _take(answer)

    def serve(self, reply: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Answer for ever; who asks ends this process."""
        while True:
            number = self._next()
            question = self._question(number)
            while not question.exists():
                time.sleep(POLL_S)
            _write(self._answer(number), reply(_take(question)))

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _question(self, number: int) -> Path:
        return self.folder / f"question-{number}.json"

    def _answer(self, number: int) -> Path:
        return self.folder / f"answer-{number}.json"


def _write(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(dict(value)), encoding="utf-8")
    partial.replace(path)


def _take(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return value
