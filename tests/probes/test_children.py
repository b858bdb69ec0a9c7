import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import psutil
import pytest

from driftscope_probes import children
from driftscope_probes.children import ChildProcess, Crash
from driftscope_probes.errors import Cancelled, EngineError
from driftscope_probes.progress import Progress, Told, discard

CHILDREN = Path(__file__).parent / "children"
PATH = {"PYTHONPATH": os.pathsep.join([str(CHILDREN), *sys.path])}


def explain(crash: Crash) -> EngineError:
    return EngineError(f"{crash.signal_name} {crash.returncode}: {crash.last_line}", remedy="none")


def start(
    do: str,
    workdir: Path,
    on_progress: Callable[[Progress], None] = discard,
    new_session: bool = False,
    asked: bool = False,
    **fields: object,
) -> ChildProcess:
    return ChildProcess(
        "step",
        {"do": do, **fields},
        workdir,
        explain_crash=explain,
        on_progress=on_progress,
        environment=PATH,
        new_session=new_session,
        asked=asked,
    )


def gone(pid: int) -> bool:
    """True when the process has ended, within a few seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_the_result_and_the_progress_arrive(tmp_path: Path) -> None:
    seen: list[Progress] = []
    child = start("answer", tmp_path, seen.append, numbers=[1, 2, 3])
    result = child.wait()
    assert result == {"pid": child.pid, "sum": 6}
    assert seen == [Progress("first", 0.25, "a detail"), Progress("second", 1.0, "")]
    assert "a line on stdout" in (tmp_path / "log.txt").read_text()


def test_what_was_told_before_a_crash_arrives_and_half_a_line_does_not(tmp_path: Path) -> None:
    seen: list[Progress] = []
    with pytest.raises(EngineError, match="SIGKILL"):
        start("killed while telling", tmp_path, seen.append).wait()
    assert seen[1:] == [Told("second", 0.5, told={"number": 1})]


def test_answers_come_to_their_questions(tmp_path: Path) -> None:
    """Of any size, refusals included; a question to a child that has ended does not hang."""
    answers: SimpleQueue[Progress] = SimpleQueue()
    child = start("serve", tmp_path, answers.put, asked=True)
    waiting = threading.Thread(target=lambda: pytest.raises(EngineError, child.wait))
    waiting.start()
    assert not isinstance(answers.get(timeout=60), Told)
    for text in ("first", "x" * 1_000_000 + "y", "refuse", "last"):
        child.ask({"text": text})
        answer = answers.get(timeout=60)
        assert isinstance(answer, Told)
        if text == "refuse":
            assert answer.told["error"] == "EngineError"
        else:
            assert answer.told == {"text": text[::-1]}
    os.kill(child.pid, signal.SIGKILL)
    waiting.join(60)
    child.ask({"text": "anybody there?"})
    child.terminate()


def test_an_error_keeps_its_kind_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        start("error", tmp_path).wait()
    assert caught.value.to_dict() == {
        "error": "EngineError",
        "message": "it broke.",
        "remedy": "mend it.",
    }


@pytest.mark.parametrize(
    ("do", "told"),
    [
        ("crash", "None 1: ZeroDivisionError: by accident"),
        ("killed", "SIGKILL -9"),
        ("silent exit", "None 0"),
        ("nan", "None 1: ValueError: Out of range float values"),
    ],
)
def test_a_crash_is_explained_from_signal_and_log(tmp_path: Path, do: str, told: str) -> None:
    with pytest.raises(EngineError, match=told):
        start(do, tmp_path).wait()
    assert not (tmp_path / "result.json").exists()


def test_cancelling_ends_the_whole_group(tmp_path: Path) -> None:
    waiting = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.stage == "waiting":
            waiting.set()

    child = start("grandchild", tmp_path, watch, new_session=True)

    def cancel() -> None:
        waiting.wait(30)
        child.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        child.wait()
    thread.join()
    assert gone(int((tmp_path / "grandchild").read_text()))


def test_a_child_deaf_to_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "TERMINATE_GRACE_S", 0.2)

    def stop(progress: Progress) -> None:
        if progress.stage == "waiting":
            raise KeyboardInterrupt

    child = start("deaf", tmp_path, stop)
    with pytest.raises(KeyboardInterrupt):
        child.wait()
    assert gone(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, str(CHILDREN / "parent.py"), str(tmp_path)]
    environment = {**os.environ, **PATH}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "waiting\n"  # so the child has set its signal
        parent.send_signal(signal.SIGKILL)
    assert gone(child)
