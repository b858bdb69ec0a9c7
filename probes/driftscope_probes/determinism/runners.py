"""One engine process that stays: opened once, asked batch after batch. Free of torch.

Engines whose environment is equal come one after another in one process: importing vLLM takes
longer than loading a small model.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.child_process import ChildProcess
from driftscope_probes.determinism.batch import Answer, Batch
from driftscope_probes.determinism.mailbox import Mailbox
from driftscope_probes.determinism.setup import Setup
from driftscope_probes.engines.crash import explain_crash
from driftscope_probes.errors import EngineError, ProbeError

MODULE = "driftscope_probes.determinism.run_session"


class EngineSession:
    def __init__(self, model: Path, workdir: Path, environment: Mapping[str, str]) -> None:
        self._child = ChildProcess(
            MODULE,
            {"model_path": str(model)},
            workdir,
            explain_crash=explain_crash,
            environment=environment,
        )
        self._mailbox = Mailbox(workdir)
        self._failure: ProbeError | None = None
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        try:
            self._child.wait()
        except ProbeError as error:
            self._failure = error

    @property
    def alive(self) -> bool:
        return self._watcher.is_alive()

    def open(self, setup: Setup) -> dict[str, Any]:
        """Replace the engine of this process; settings as it resolved them. Raises ProbeError."""
        return self._ask({"open": setup.to_dict()})

    def run(self, batch: Batch) -> Answer:
        """Raises ProbeError."""
        return Answer.from_dict(self._ask({"run": batch.to_dict()}))

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = self._mailbox.ask(question, lambda: self.alive)
        except ConnectionError as error:
            raise self._failure or EngineError(
                "the engine process ended.", remedy="start the probe again."
            ) from error
        if "error" in answer:
            raise ProbeError.from_dict(answer)
        return answer

    def close(self) -> None:
        self._child.cancel()
        self._watcher.join()
