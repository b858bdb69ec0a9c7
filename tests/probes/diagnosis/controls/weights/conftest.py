"""make_bench, and one thread for torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from driftscope_probes.diagnosis.controls.bench import Bench

from .benches import HereEngine, HereTrainer, MakeBench, known_of, sides_of


@pytest.fixture
def make_bench(tmp_path: Path) -> MakeBench:
    def make(engine: Path, trainer: Path, dtype: str = "bf16", **fields: Any) -> Bench:
        sides = sides_of(engine, trainer, dtype, **fields)
        return Bench(sides, HereEngine(sides, tmp_path / "w"), HereTrainer(sides), known_of(sides))

    return make


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
