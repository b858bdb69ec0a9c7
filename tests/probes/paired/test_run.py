"""A whole paired run on a tiny model: the reference that tells the sides apart, and the floors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.floor.store import FloorStore
from driftscope_probes.paired.report import PairedReport
from driftscope_probes.paired.run import run_probe
from driftscope_probes.progress import discard

pytestmark = pytest.mark.slow  # engine and trainer processes
ENGINE = {"kind": "hf", "threads": 1}
SIZE = {"model": "tiny-random-llama", "prompts": 4, "sampling": {"max_tokens": 8}}


def run(folder: Path, floors: Path | None, **fields: Any) -> PairedReport:
    trainer = {"threads": 1, "headroom": False, **fields.pop("trainer", {})}
    asked = {**SIZE, "engine": ENGINE, "trainer": trainer, "resamples": 200, **fields}
    request = {
        "kind": "paired",
        "request": asked,
        "floors": None if floors is None else str(floors),
    }
    return PairedReport.read(run_probe(request, folder, discard))


def test_the_reference_is_scored_but_is_no_cell(tmp_path: Path) -> None:
    report = run(
        *(tmp_path, tmp_path / "floors"),
        engine_dtypes=["bf16"],
        trainer_dtypes=["bf16"],
        trainer={"backward": True},
    )
    (cell,) = report.grid
    side = cell.which_side
    assert side is not None and side.carries in ("rollout", "trainer", "both")
    assert 0.0 < side.trainer_sigma < 0.2 and 0.0 < side.rollout_sigma < 0.2
    assert side.sigma**2 == pytest.approx(
        side.rollout_sigma**2 + side.trainer_sigma**2 - 2 * side.covariance
    )
    assert "no other cell" in side.sentence and side.changes == ()
    assert report.gradients is not None
    (gradient,) = report.gradients
    # Against the reference's own gradient, which is no row.
    assert gradient.trainer_dtype == "bf16" and gradient.norm_relative_difference is not None
    # Nothing finer beside it: whether this is rounding alone, one cell cannot tell.
    assert FloorStore(tmp_path / "floors").all() == ()


def test_healthy_cells_leave_their_floors(tmp_path: Path) -> None:
    dtypes = {"engine_dtypes": ["bf16", "fp32"], "trainer_dtypes": ["bf16", "fp32"]}
    store = FloorStore(tmp_path / "floors")
    report = run(tmp_path, store.folder, **dtypes)
    assert [floor.measured_by for floor in store.all()] == ["paired"] * 4
    found = store.find("tiny-random-llama", "bf16", "bf16")
    (cell,) = (c for c in report.grid if (c.engine_dtype, c.trainer_dtype) == ("bf16", "bf16"))
    assert cell.which_side is not None and found is not None
    assert found.sigma == cell.which_side.sigma and "paired probe" in found.basis


def test_a_folder_that_cannot_be_written_costs_the_floors_only(tmp_path: Path) -> None:
    (tmp_path / "floors").write_text("a file")
    dtypes = {"engine_dtypes": ["fp32"], "trainer_dtypes": ["fp32"]}
    report = run(tmp_path / "work", tmp_path / "floors", **dtypes)
    assert any("cannot be stored" in note for note in report.notes)
    assert report.grid[0].which_side is not None
