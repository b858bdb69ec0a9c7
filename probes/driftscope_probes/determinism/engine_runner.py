"""Runner over real engines: keeps one engine process, replaced when its environment must change.

In: setups and batches. Out: answers; and of every engine opened, the settings it resolved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driftscope_probes.determinism.batch import Answer, Batch
from driftscope_probes.determinism.engine_session import EngineSession
from driftscope_probes.determinism.setup import Setup
from driftscope_probes.engines.child_environment import child_environment


class EngineRunner:
    """One process at a time: two would share cores and memory, and so disturb each other."""

    def __init__(self, model: Path, workdir: Path) -> None:
        self._model, self._workdir = model, workdir
        self._session: EngineSession | None = None
        self._place: tuple[int, tuple[tuple[str, str], ...]] | None = None
        self._opened: Setup | None = None
        self.processes = 0
        self.engines: list[dict[str, Any]] = []

    def run(self, setup: Setup, batch: Batch) -> Answer:
        return self._session_for(setup).run(batch)

    def _session_for(self, setup: Setup) -> EngineSession:
        place = (setup.process, tuple(sorted(child_environment(setup.engine).items())))
        if self._session is None or self._place != place or not self._session.alive:
            self.close()
            self.processes += 1
            folder = self._workdir / f"engine-{self.processes}"
            self._session = EngineSession(self._model, folder, dict(place[1]))
            self._place = place
        if self._opened != setup:
            # Should opening fail, the engine before is gone as well.
            self._opened = None
            used = self._session.open(setup)
            self.engines.append(used | {"process": self.processes})
            self._opened = setup
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session, self._place, self._opened = None, None, None
