"""What a command line names: folders of steps, packed files, and what an unknown file says."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from safetensors.numpy import save_file

from driftscope_probes.push import PushError, source
from driftscope_probes.push.readers import looks
from driftscope_probes.push.source import StepSource, read_source, sources_of

LIKE = StepSource(())
STEPS = (3, 12)
RANKS = 3


def export(step: int, rank: int) -> str:
    """A sequence of prime-rl: one prompt token, then as many as the rank says."""
    n = rank + 2
    record = {
        **{"schema_version": 1, "export_step": step, "rank": rank, "env_name": f"env{rank % 2}"},
        "token_ids": list(range(n)),
        "loss_mask": [False] + [True] * (n - 1),
        "inference_logprobs": [0.0] + [-0.5] * (n - 1),
        "trainer_logprobs": [0.0] + [-0.5 - rank / 8] * (n - 1),
    }
    return json.dumps(record) + "\n"


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    for step in STEPS:
        folder = tmp_path / "token_exports" / f"step_{step}"
        folder.mkdir(parents=True)
        for rank in range(RANKS):
            (folder / f"rank_{rank}.jsonl").write_text(export(step, rank))
        (folder / "STABLE").touch()
    return tmp_path / "token_exports"


def test_a_folder_of_steps(exports: Path) -> None:
    for folder in (exports, exports.parent):
        found = sources_of(folder, LIKE)
        assert [one.step for one in found] == list(STEPS)
    step = read_source(found[1])
    assert (step.sequences, step.tokens) == (RANKS, 1 + 2 + 3)
    assert step.trainer.tolist() == [-0.5, *[-0.625] * 2, *[-0.75] * 3]
    assert step.metadata["step"] == "12" and step.metadata["environments"] == "env0,env1"
    assert step.tensors()["rank"].tolist() == [0, 1, 2]


def test_a_folder_of_one_step(exports: Path) -> None:
    (only,) = sources_of(exports / "step_3", LIKE)
    assert only.step == 3 and len(only.files) == RANKS
    (exports / "step_3").rename(exports / "third")
    (only,) = sources_of(exports / "third", LIKE)
    assert only.step is None and read_source(only).tokens == 6


def test_a_log_folder_of_nemo_rl(tmp_path: Path) -> None:
    """A line of a sample, of a whole batch, and of an older log without a mask."""
    sample = {"generation_logprobs": [0.0, -0.5, -1.0, 0.0], "prev_logprobs": [-9, -0.5, -1.5, 0]}
    masked = {**sample, "token_loss_mask": [0, 1, 1, 0], "advantages": [0.5], "rewards": 1.0}
    batch = {name: [value, value] for name, value in masked.items()}
    texts = [json.dumps(masked), json.dumps(batch), json.dumps(sample | {"input_lengths": 3})]
    for step, text in enumerate(texts):
        (tmp_path / f"train_data_step{step}.jsonl").write_text(text + "\n")
    (tmp_path / "val_data_step1.jsonl").write_text("{}\n")
    found = [read_source(one) for one in sources_of(tmp_path, LIKE)]
    assert [step.sequences for step in found] == [1, 2, 1]
    for one in found:
        assert one.trainer[:2].tolist() == [-0.5, -1.5] and one.mask.all()
    assert found[0].advantages is not None and found[0].advantages.tolist() == [0.5, 0.5]


def test_folders_that_are_none(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = exports.parent / "empty"
    empty.mkdir()
    with pytest.raises(PushError, match="a folder without a step"):
        sources_of(empty, LIKE)
    with pytest.raises(PushError, match="--trainer names one file"):
        sources_of(exports, StepSource((), trainer=empty))
    (exports / "step_3" / "rank_1.jsonl").write_text(export(4, 1))
    with pytest.raises(PushError, match="metadata 'step' is '4' in shard 1"):
        read_source(sources_of(exports, LIKE)[0])
    monkeypatch.setattr(source, "MAX_ENTRIES", 1)
    with pytest.raises(PushError, match="more than 1 entries"):
        sources_of(exports, LIKE)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_packed_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    name = "rank_0.jsonl" + (".gz" if pack is gzip.compress else ".zst")
    whole = pack(export(3, 1).encode())
    (tmp_path / name).write_bytes(whole)
    (only,) = sources_of(tmp_path, LIKE)
    assert read_source(only).tokens == 2
    (tmp_path / name).write_bytes(whole[:-8])
    with pytest.raises(PushError):
        read_source(only)
    (tmp_path / name).write_bytes(pack(bytes(10**6)))
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 10**5)
    with pytest.raises(PushError, match="unpacks to more than 100,000 bytes"):
        read_source(only)


LISTS: dict[str, Any] = {"mu_gen_logp": [[-0.5, -1.0]], "pi_train_logp": [[-0.75, -1.5]]}
FLAT: dict[str, Any] = {name: np.array(rows[0], np.float32) for name, rows in LISTS.items()}
UNKNOWN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a.safetensors": (
        lambda path: save_file({**FLAT, "cu_seqlens": np.array([0, 2])}, path),
        "mu_gen_logp: F32 [2], first -0.5, -1",
    ),
    "b.npz": (
        lambda path: np.savez(path, **FLAT, cu_seqlens=[0, 2]),
        "mu_gen_logp: float32 [2], first -0.5, -1",
    ),
    "c.json": (
        lambda path: path.write_text(json.dumps(LISTS)),
        "mu_gen_logp: 1 lists, the first of 2, first -0.5, -1",
    ),
    "d.jsonl": (
        lambda path: path.write_text(json.dumps({n: rows[0] for n, rows in LISTS.items()})),
        "mu_gen_logp: list of 2, first -0.5, -1",
    ),
    "e.parquet": (
        lambda path: pq.write_table(pa.table(LISTS), path),
        "mu_gen_logp: list<element: double> of 2, first -0.5, -1",
    ),
    "f.csv": (
        lambda path: path.write_text("mu_gen_logp,pi_train_logp\n-0.5,-0.75\n"),
        "mu_gen_logp: column, first -0.5",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_file_says_what_it_holds(tmp_path: Path, name: str) -> None:
    write, told = UNKNOWN[name]
    write(tmp_path / name)
    (only,) = sources_of(tmp_path / name, LIKE)
    with pytest.raises(PushError) as error:
        read_source(only)
    assert told in error.value.message, error.value.message
    option = "--columns rollout_logprobs=mu_gen_logp,trainer_logprobs=pi_train_logp"
    assert option in str(error.value.remedy)


def test_nothing_is_suggested_where_it_is_not_plain() -> None:
    def look(name: str, *values: float) -> looks.Look:
        return looks.Look(name, "list", values)

    both = [look("gen_logp", -0.5), look("old_logp", -0.5)]
    assert looks.suggested(both) is not None
    assert looks.suggested([*both, look("vllm_logp", -0.5)]) is None
    assert looks.suggested([look("gen_logp", 0.5), look("old_logp", -0.5)]) is None
    assert looks.described([]) == "" and "\x1b" not in look("a", float("nan")).text


@pytest.mark.parametrize("raw", [b"", b"{", b"PAR1xxxx", b"PK\x03\x04", b"\xff" * 9, b"a,b\n\x00"])
def test_what_cannot_be_looked_at_is_left_out(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x").write_bytes(raw)
    assert looks.looks_of(tmp_path / "x") == []
