"""What every test may ask for: the demo models, built once per machine, and quiet engines."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from driftscope_probes.models.fetch import fetch

# Read when torch is loaded, here and in every process that a test starts. Threads that spin while
# they wait take six times the processor time where two processes share two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
#: One child process runs all kernels of this folder that are interpreted: see its conftest.py.
ONE_UNIT = "triton_kernels"


class FilesInOrder(LoadFileScheduling):  # type: ignore[misc]
    """Gives files to the processes in the order of collection, not those of most tests first."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        folder = PurePath(nodeid.split("::", 1)[0]).parent
        return str(folder) if folder.name == ONE_UNIT else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesInOrder | None:
    return FilesInOrder(config, log) if config.option.dist == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first; the short ones then fill what is left of either process."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _one_thread_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two OpenMP teams on two cores fight; the hub must not be asked behind a test's back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_llama() -> Path:
    return fetch("tiny-random-llama").path


@pytest.fixture(scope="session")
def tiny_moe() -> Path:
    return fetch("tiny-random-moe").path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return fetch("smollm2-135m").path
