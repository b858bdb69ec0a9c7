"""A real child for tests of child_process: it does what its request says."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main, serve_questions
from driftscope_probes.errors import EngineError
from driftscope_probes.progress import Progress, ProgressSink, Told


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    progress(Progress("first", 0.25, "a detail"))
    print("a line on stdout")
    match request["do"]:
        case "answer":
            progress(Progress("second", 1.0))
            return {"pid": os.getpid(), "sum": sum(request["numbers"])}
        case "error":
            raise EngineError("it broke.", remedy="mend it.")
        case "crash":
            raise ZeroDivisionError("by accident")
        case "nan":
            return {"value": float("nan")}
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "killed while telling":
            progress(Told("second", 0.5, told={"number": 1}))
            os.write(int(os.environ["DRIFTSCOPE_PROGRESS_FD"]), b'{"stage": "thi')
            os.kill(os.getpid(), signal.SIGKILL)
        case "serve":
            serve_questions(_reply, progress)
            return {"stdin": sys.stdin.read()}
        case "silent exit":
            os._exit(0)
        case "grandchild":
            code = "import time; time.sleep(600)"
            grandchild = subprocess.Popen([sys.executable, "-c", code])
            (workdir / "grandchild").write_text(str(grandchild.pid))
            progress(Progress("waiting", 0.5))
            time.sleep(600)
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            progress(Progress("waiting", 0.5))
            time.sleep(600)
    raise AssertionError("not reached")


def _reply(question: dict[str, Any]) -> Mapping[str, Any]:
    if question["text"] == "refuse":
        raise EngineError("not that.", remedy="ask something else.")
    return {"text": question["text"][::-1]}


if __name__ == "__main__":
    child_main(run)
