"""Nights with stub children: verdicts are told, environments made up, everything else is real."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.nightly import run as run_nightly
from driftscope_probes.nightly import work
from driftscope_probes.nightly.report import NightlyReport
from driftscope_probes.nightly.request import parse_config
from driftscope_probes.progress import Progress, ProgressSink, discard

CHILDREN = Path(__file__).parent / "children"
KERNELS = ("a/linear/one", "a/linear/two", "b/mean/one", "b/mean/two")
#: Every kernel is expected to be proved, but the last.
CONFIG = f"""
name = "stub"
budget_minutes = 1
[[kernels]]
names = {json.dumps(KERNELS)}
dtypes = ["fp32"]
expected = "PROVED"
[[kernels.override]]
items = "kernel/b/mean/two/*"
expected = "REFUTED"
"""
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.0",
    "platform": "Linux",
    "packages": {"torch": "2.13.0", "vllm": "0.32.0", "driftscope": "0.1.0"},
    "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gib": 7.5},
    "variables": {"OMP_NUM_THREADS": "2"},
    "libraries": {"oneDNN": "v3.12.0"},
    "kernel_packages": {},
    "commit": "abc",
}


class StubNights:
    """What the next night will see; `run` is a night."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.history = folder, folder / "history"
        self.config = CONFIG
        self.environment = copy.deepcopy(ENVIRONMENT)
        self.told: dict[str, dict[str, Any]] = {name: {"verdict": "PROVED"} for name in KERNELS}
        self.told["b/mean/two"] = {"verdict": "REFUTED"}
        self.verdicts = folder / "verdicts.json"
        monkeypatch.setenv("STUB_VERDICTS", str(self.verdicts))
        path = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(CHILDREN), path))))
        monkeypatch.setattr(work, "KERNEL_MODULE", "stub_items")
        monkeypatch.setattr(run_nightly, "night_environment", lambda: (self.environment, ()))

    def write(self) -> Path:
        """The files for a night of another process; the configuration's path."""
        self.verdicts.write_text(json.dumps(self.told), encoding="utf-8")
        path = self.folder / "config.toml"
        path.write_text(self.config, encoding="utf-8")
        return path

    def run(
        self,
        progress: ProgressSink = discard,
        budget_s: float | None = None,
        resume: bool = True,
        pages: Mapping[str, Callable[[NightlyReport], str]] | None = None,
    ) -> NightlyReport:
        self.write()
        config = parse_config(self.config.encode())
        return run_nightly.run_nightly(
            config, self.history, progress, budget_s, resume=resume, pages=pages
        )


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubNights:
    return StubNights(tmp_path, monkeypatch)


class Interrupting:
    """A sink that fails as soon as `items` are finished: an interrupted start of a night."""

    def __init__(self, items: int) -> None:
        self.items = items

    def __call__(self, step: Progress) -> None:
        if int(step.detail.split()[0]) >= self.items:
            raise KeyboardInterrupt


@pytest.fixture
def interrupting() -> type[Interrupting]:
    return Interrupting
