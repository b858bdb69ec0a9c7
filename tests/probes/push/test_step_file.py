import json
import shutil
from pathlib import Path

import pytest

from driftscope_probes.push import PushError, read_step


def test_by_suffix_and_by_name(good: Path, tmp_path: Path) -> None:
    assert read_step(good).tokens == 7
    shutil.copy(good, tmp_path / "upload")
    assert read_step(tmp_path / "upload", "safetensors").tokens == 7
    lists = {"rollout_logprobs": [[-1.0]], "trainer_logprobs": [[-1.0]]}
    (tmp_path / "step.json").write_text(json.dumps(lists))
    assert read_step(tmp_path / "step.json").tokens == 1


def test_no_file_and_no_known_suffix(good: Path, tmp_path: Path) -> None:
    for absent in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(PushError, match="no such file"):
            read_step(absent)
    shutil.copy(good, tmp_path / "step.npz")
    with pytest.raises(PushError, match=r"suffix '\.npz' names no format"):
        read_step(tmp_path / "step.npz")


def test_one_format_read_as_another(good: Path) -> None:
    for wrong in ("json", "prime-rl"):
        with pytest.raises(PushError, match="no valid JSON"):
            read_step(good, wrong)
