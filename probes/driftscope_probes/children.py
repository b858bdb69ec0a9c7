"""Child processes: start one, follow its progress, take its result or explain its end.

parent → child   request.json in the work folder; questions, one line each, on stdin
child → parent   progress, findings and answers, one line each, on a pipe; result.json or
                 error.json in the work folder; log.txt, whose end explains a crash
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from driftscope_probes.errors import Cancelled, ProbeError
from driftscope_probes.progress import Progress, ProgressSink, Told, discard

_PROGRESS_FD = "DRIFTSCOPE_PROGRESS_FD"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: Enough of the log to hold a Python traceback with a chained cause.
LOG_TAIL_BYTES = 16_384
#: We need nothing that an engine writes after SIGTERM; a GPU driver may take seconds to let go.
TERMINATE_GRACE_S = 5.0

Runner = Callable[[dict[str, Any], Path, ProgressSink], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Crash:
    """How a child ended without reporting a result or an error of its own."""

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
        inherited: Mapping[str, str] | None = None,
        new_session: bool = False,
        asked: bool = False,
        python: str = sys.executable,
        grace_s: float = TERMINATE_GRACE_S,
    ) -> None:
        """`environment` goes before `inherited`, by default this process's own; `grace_s`: what
        the child has left between SIGTERM and SIGKILL."""
        self.module = module
        self.workdir = workdir
        self._explain_crash = explain_crash
        self._on_progress = on_progress
        self._new_session = new_session
        self._grace_s = grace_s
        self._cancelled = threading.Event()
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "request.json").write_text(json.dumps(dict(request)), encoding="utf-8")
        whole = {**(os.environ if inherited is None else inherited), **(environment or {})}
        self._start(python, whole, subprocess.PIPE if asked else subprocess.DEVNULL)

    def _start(self, python: str, environment: Mapping[str, str], stdin: int) -> None:
        read_fd, write_fd = os.pipe()
        self._progress_pipe = os.fdopen(read_fd, encoding="utf-8", errors="replace")
        try:
            with open(self.workdir / "log.txt", "wb") as log:
                self._process = subprocess.Popen(
                    [python, "-m", self.module, str(self.workdir)],
                    stdin=stdin,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**environment, _PROGRESS_FD: str(write_fd)},
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
                    # A child killed while it wrote leaves half a line.
                    if line.endswith("\n"):
                        self._on_progress(parse_progress(json.loads(line)))
            returncode = self._process.wait()
        except BaseException:
            # Ctrl-C or a failing sink: no engine may outlive its caller.
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

    def ask(self, question: Mapping[str, Any]) -> None:
        """`on_progress` hears the answer. To a child that has ended: `wait()` says why."""
        assert self._process.stdin is not None, "the child was started without a line to ask on"
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(dict(question)).encode() + b"\n")
            self._process.stdin.flush()

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
            self._process.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            pass
        # Even after the leader has exited, a grandchild in its group may still hold memory.
        self._send(signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _send(self, number: signal.Signals) -> None:
        try:
            if self._new_session:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        except ProcessLookupError:
            return


def parse_progress(fields: dict[str, Any]) -> Progress:
    return Told(**fields) if "told" in fields else Progress(**fields)


def child_main(run: Runner) -> None:
    """Entry of a child: carry out `request.json` of the folder named in argv, then leave at once.

    A ProbeError becomes `error.json`. Any other exception is a crash: its traceback goes to the
    log, from which the parent explains it.
    """
    _die_with_parent()
    workdir = Path(sys.argv[1])
    request = json.loads((workdir / "request.json").read_text(encoding="utf-8"))
    progress_fd = int(os.environ[_PROGRESS_FD])
    # Processes that we start must not hold open the pipe on which the parent waits for our end.
    os.set_inheritable(progress_fd, False)
    with os.fdopen(progress_fd, "w", encoding="utf-8") as pipe:
        try:
            result = run(request, workdir, partial(_tell, pipe))
        except ProbeError as error:
            _write_json(workdir / "error.json", error.to_dict())
            _leave(1)
        _write_json(workdir / "result.json", result)
        _leave(0)


def _die_with_parent() -> None:
    """A killed parent must leave no engine behind (Linux only; elsewhere a no-op)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _tell(pipe: TextIO, progress: Progress) -> None:
    pipe.write(json.dumps(progress.to_dict(), allow_nan=False) + "\n")
    pipe.flush()


def serve_questions(
    reply: Callable[[dict[str, Any]], Mapping[str, Any]], progress: ProgressSink
) -> None:
    """In the child: answer until the parent ends it, or has ended. ProbeErrors are answers."""
    # Processes that we start must not read from the pipe that carries our questions.
    with os.fdopen(os.dup(0), encoding="utf-8") as questions:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        for line in questions:
            try:
                answer = reply(json.loads(line))
            except ProbeError as error:
                answer = error.to_dict()
            progress(Told("", 0.0, told=answer))


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
