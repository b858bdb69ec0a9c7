"""A DRIFTSCOPE_HOME of its own for each test, a tiny model to damage, and an environment for
child processes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import driftscope_probes
from driftscope_probes.models import tiny_random
from driftscope_probes.progress import discard


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("DRIFTSCOPE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def pristine_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "llama"
    folder.mkdir()
    tiny_random.build_llama(folder, discard)
    return folder


@pytest.fixture
def llama_copy(pristine_llama: Path, tmp_path: Path) -> Path:
    """A sound model folder that the test may change."""
    return Path(shutil.copytree(pristine_llama, tmp_path / "llama"))


@pytest.fixture
def child_environment(own_home: Path) -> dict[str, str]:
    """For subprocesses: the package under test on the path, the Hub out of reach."""
    source = Path(driftscope_probes.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
