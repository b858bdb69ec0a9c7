"""Pickles are named and never read; the three lines that convert them do."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from driftscope_probes.push import PushError, read_step

ROLLOUT, TRAINER = [[-0.5, -1.0], [-2.0]], [[-0.75, -1.5], [-2.5]]


def listed(rows: list[list[float]]) -> list[torch.Tensor]:
    return [torch.tensor(row) for row in rows]


def padded(rows: list[list[float]]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(listed(rows), batch_first=True)


SLIME = {
    "rollout_id": 3,
    "rank": 0,
    "rollout_data": {
        "tokens": [torch.tensor([1, 2, 3]), torch.tensor([1, 2])],
        "response_lengths": [2, 1],
        "loss_masks": [torch.ones(2, dtype=torch.int), torch.ones(1, dtype=torch.int)],
        "rollout_log_probs": listed(ROLLOUT),
        "log_probs": listed(TRAINER),
        "advantages": listed(TRAINER),
    },
}
DUMPS: dict[str, Any] = {
    "slime": SLIME,
    # verl's tensors without the DataProto around them: [sequences, longest] with a mask.
    "verl": {
        "rollout_log_probs": padded(ROLLOUT),
        "old_log_probs": padded(TRAINER),
        "response_mask": torch.tensor([[1, 1], [1, 0]]),
        "batch_size": 2,
    },
    "lists of its own": {"batch": {"gen": 0, "sampling_per_token_logps": listed(ROLLOUT),
                                   "old_per_token_logps": listed(TRAINER)}},
}  # fmt: skip


def refusal(path: Path) -> PushError:
    with pytest.raises(PushError, match="pickles are not read") as error:
        read_step(path)
    return error.value


@pytest.mark.parametrize("dumped", DUMPS)
def test_the_three_lines_convert_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dumped: str
) -> None:
    torch.save(DUMPS[dumped], tmp_path / "0_3.pt")
    refused = refusal(tmp_path / "0_3.pt")
    assert ("slime and miles" in refused.message) == (dumped == "slime")
    code = str(refused.remedy).partition(":\n")[2]
    assert len(code.splitlines()) == 3 and "weights_only=True" in code
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "converted", "exec"), {})
    step = read_step(tmp_path / "0_3.safetensors")
    assert step.cu_seqlens.tolist() == [0, 2, 3]
    assert step.rollout.tolist() == [-0.5, -1.0, -2.0]
    assert step.trainer.tolist() == [-0.75, -1.5, -2.5]


def test_names_of_another_batch_are_listed(tmp_path: Path) -> None:
    torch.save({"mu_logp": torch.zeros(3), "pi_logp": torch.zeros(3)}, tmp_path / "b.pt")
    refused = refusal(tmp_path / "b.pt")
    assert "with the names mu_logp, pi_logp" in refused.message.replace("_rebuild_tensor_v2, ", "")
    assert 'd["…"]' in str(refused.remedy)


def test_the_engines_samples_are_one_side(tmp_path: Path) -> None:
    sample = {"tokens": [1, 2], "rollout_log_probs": [-0.5], "response_length": 1}
    torch.save({"rollout_id": 3, "samples": [sample]}, tmp_path / "3.pt")
    refused = refusal(tmp_path / "3.pt")
    assert "one side only, the rollout's" in refused.message
    assert "--save-debug-train-data" in str(refused.remedy)


def test_names_are_found_without_running_anything(tmp_path: Path) -> None:
    """In a process of its own, which ends where the pickle is loaded."""
    path = tmp_path / "planted.pkl"
    path.write_bytes(b"\x80\x04X\x04\x00\x00\x00logpcposix\n_exit\n(I3\ntR.")
    code = (
        "import pickle, sys; from driftscope_probes.push.readers.pickles import names_in; "
        "f = open(sys.argv[1], 'rb'); print(names_in(f), flush=True); f.seek(0); pickle.load(f)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={"PYTHONPATH": str(Path(__file__).parents[4] / "probes")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.strip() == "('logp',)" and done.returncode == 3, done.stderr


def test_a_damaged_pickle_is_one_still(tmp_path: Path) -> None:
    whole = pickle.dumps({"logp": [1.0] * 100, "text": "x" * 1000})
    (tmp_path / "a.pkl").write_bytes(whole[:40])
    assert "a Python pickle" in refusal(tmp_path / "a.pkl").message
