import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from driftscope_probes.push import PushError, read_step
from driftscope_probes.push.column_names import ColumnNames, parse_columns


def test_by_content_and_by_name(good: Path, tmp_path: Path) -> None:
    assert read_step(good).tokens == 7
    shutil.copy(good, tmp_path / "upload")
    assert read_step(tmp_path / "upload", "safetensors").tokens == 7
    lists = {"rollout_logprobs": [[-1.0]], "trainer_logprobs": [[-1.0]]}
    (tmp_path / "step.json").write_text(json.dumps(lists))
    assert read_step(tmp_path / "step.json").tokens == 1


def test_arrow_is_loaded_only_for_arrow(good: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from driftscope_probes.push import read_step; "
        "read_step(Path(sys.argv[1])); print('pyarrow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(good)]
    told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert told.split() == ["False"]


def test_no_file_and_no_known_suffix(good: Path, tmp_path: Path) -> None:
    for absent in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(PushError, match="no such file"):
            read_step(absent)
    (tmp_path / "step.log").write_bytes(b"step 3, loss 0.2")
    with pytest.raises(PushError, match=r"suffix '\.log' names no format, and it begins with b'st"):
        read_step(tmp_path / "step.log")


def test_one_format_read_as_another(good: Path) -> None:
    with pytest.raises(PushError, match="no Arrow message at byte 0"):
        read_step(good, "arrow")
    for wrong in ("json", "prime-rl"):
        with pytest.raises(PushError, match="not valid JSON"):
            read_step(good, wrong)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "step.jsonl").write_bytes(b"")
    with pytest.raises(PushError, match="it is empty"):
        read_step(tmp_path / "step.jsonl")


def test_two_flat_arrays_are_one_sequence(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", mu=np.full(5, -1.0), pi=np.full(5, -1.5))
    columns = ColumnNames(parse_columns("rollout_logprobs=mu,trainer_logprobs=pi"))
    assert read_step(tmp_path / "x.npz", columns=columns).cu_seqlens.tolist() == [0, 5]
