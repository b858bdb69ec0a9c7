"""A child process that answers questions, one after another, until it is closed. Free of torch.

In: a module that serves questions (`children.serve_questions`). Out: its answers.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from driftscope_probes.children import ChildProcess, ExplainCrash
from driftscope_probes.errors import ProbeError
from driftscope_probes.progress import Progress, Told


class AskedChild:
    def __init__(
        self,
        module: str,
        request: Mapping[str, Any],
        workdir: Path,
        *,
        explain_crash: ExplainCrash,
        environment: Mapping[str, str],
    ) -> None:
        self._child = ChildProcess(
            module,
            request,
            workdir,
            explain_crash=explain_crash,
            on_progress=self._hear,
            environment=environment,
            asked=True,
        )
        self._module = module
        self._answers: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()
        self._failure: ProbeError | None = None
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @property
    def alive(self) -> bool:
        return self._watcher.is_alive()

    def ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raises ProbeError: what the child answered with, or why it ended."""
        if self.alive:
            self._child.ask(question)
        answer = self._answers.get()
        if answer is None:
            self._answers.put(None)  # whoever asks next hears it too
            raise self._failure or ProbeError(
                f"the process of {self._module} ended.", remedy="start the probe again."
            )
        if "error" in answer:
            raise ProbeError.from_dict({key: str(value) for key, value in answer.items()})
        return answer

    def close(self) -> None:
        self._child.cancel()
        self._watcher.join()

    def _hear(self, step: Progress) -> None:
        if isinstance(step, Told):
            self._answers.put(step.told)

    def _watch(self) -> None:
        try:
            self._child.wait()
        except ProbeError as error:
            self._failure = error
        finally:
            self._answers.put(None)
