"""What `analyze` and `push` are given: paths, formats and columns → sources of steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope_probes.errors import ProbeError
from driftscope_service.runs.step_files import MAX_SHOWN_STEPS, known_format, step_sources


def test_a_file_and_how_to_read_it(tmp_path: Path) -> None:
    (only,) = step_sources(tmp_path / "a", "csv", "mask=m", tmp_path / "t.npz", 7)
    assert only.files == (tmp_path / "a",) and only.step is None
    assert (only.step_format, only.trainer) == ("csv", tmp_path / "t.npz")
    assert only.columns.given == {"mask": "m"}


def test_steps_of_a_folder(tmp_path: Path) -> None:
    for step in range(MAX_SHOWN_STEPS + 3):
        (tmp_path / f"train_data_step{step}.jsonl").touch()
    assert [one.step for one in step_sources(tmp_path, None, None, None, 11)] == [11]
    with pytest.raises(ProbeError, match="no step 99") as error:
        step_sources(tmp_path, None, None, None, 99)
    assert str(error.value.remedy).endswith("10, 11 and 3 more.")


def test_formats_by_name() -> None:
    assert known_format(None) is None and known_format("openai") == "openai"
    with pytest.raises(ProbeError, match="unknown format 'pt'") as error:
        known_format("pt")
    assert "prime-rl" in str(error.value.remedy)
