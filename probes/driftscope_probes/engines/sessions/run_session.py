"""Child process that keeps an engine and answers batches until it is ended.

    python -m driftscope_probes.engines.sessions.run_session WORKDIR

request.json: model_path. Questions: {"open": Setup} loads an engine instead of the one before,
{"run": Batch} gives an Answer. A ProbeError is answered as such; anything else is a crash, which
the parent explains from the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main, serve_questions
from driftscope_probes.engines.sessions.question import Answer, Batch, Setup
from driftscope_probes.engines.sessions.registry import BatchEngine, open_engine
from driftscope_probes.progress import ProgressSink


class Desk:
    """Answers questions. Drills derive from it: `opened` and `answer` are where an engine errs."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self._engine: BatchEngine | None = None

    def reply(self, question: dict[str, Any]) -> Mapping[str, Any]:
        if "open" in question:
            return self._open(Setup.from_dict(question["open"]))
        assert self._engine is not None, "asked to run a batch before an engine was opened"
        return self.answer(self._engine, Batch.from_dict(question["run"])).to_dict()

    def _open(self, setup: Setup) -> dict[str, Any]:
        if self._engine is not None:
            self._engine.close()
            # vLLM refuses a new engine while anything still refers to the old one.
            self._engine = None
        self._engine = self.opened(Path(setup.model) if setup.model else self.model, setup)
        return self._engine.used_settings()

    def opened(self, model: Path, setup: Setup) -> BatchEngine:
        """Load an engine with the weights of `model`. Raises ProbeError."""
        return open_engine(model, setup)

    def answer(self, engine: BatchEngine, batch: Batch) -> Answer:
        """Raises ProbeError."""
        return engine.run(batch)


def run(request: dict[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    serve_questions(Desk(Path(request["model_path"])).reply, progress)
    return {}


if __name__ == "__main__":
    child_main(run)
