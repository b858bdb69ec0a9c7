"""What every test may ask for: the demo models, built once per machine, and quiet engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope_probes.models.fetch import fetch


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
