"""Stands for kernel_items: verdicts out of a file, and ways to fail.

STUB_VERDICTS names a JSON file: kernel name → {"verdict", "bits", "sleep", "crash"}.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main
from driftscope_probes.errors import EngineError
from driftscope_probes.nightly.shared_process import FindingTeller
from driftscope_probes.progress import ProgressSink


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    told = json.loads(Path(os.environ["STUB_VERDICTS"]).read_text(encoding="utf-8"))
    if "before all" in told:
        raise EngineError("nothing can be loaded.", remedy="none")
    teller = FindingTeller(len(request["units"]), progress)
    for number, unit in enumerate(request["units"]):
        does = told[unit["name"]]
        teller.began(number, unit["name"])
        time.sleep(does.get("sleep", 0))
        if does.get("crash"):
            os.kill(os.getpid(), signal.SIGKILL)
        verdict = {"verdict": _verdict(does["verdict"]), "bits": does.get("bits")}
        teller.done(number, unit["name"], verdict)
    return {}


def _verdict(name: str) -> dict[str, Any]:
    return {
        "verdict": name,
        "reason": f"told to be {name}",
        "detection_rate": None,
        "counterexample": None,
        "axes": [],
        "seconds": 0.25,
    }


if __name__ == "__main__":
    child_main(run)
