"""Files that lie about themselves, and sizes beyond the limits: refused before anything is read."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from driftscope_probes.push import FORMATS, PushError, read_step
from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames
from driftscope_probes.push.readers import npz, parquet, records
from driftscope_probes.push.readers.base import HEAD_BYTES, Opening
from driftscope_probes.push.readers.looks import looks_of
from driftscope_probes.push.readers.nemo_rl import FRAMEWORK
from driftscope_probes.push.readers.refused import not_a_step
from driftscope_probes.push.readers.registry import READERS, reader_of

SIDES: dict[str, Any] = {
    "rollout_logprobs": [[-0.5, -1.0], [-2.0]],
    "trainer_logprobs": [[-0.5, -1.25], [-2.5]],
}
FLAT = {name: np.concatenate(rows).astype(np.float32) for name, rows in SIDES.items()}
NEMO: dict[str, Any] = {
    "token_ids": [1, 2, 3, 0],
    "token_loss_mask": [0, 1, 1, 0],
    "sample_loss_mask": 1.0,
    "generation_logprobs": [0.0, -0.5, -1.0, 0.0],
    "prev_logprobs": [0.0, -0.5, -1.5, 0.0],
    "advantages": 0.5,
}


def refused(path: Path, told: str) -> None:
    with pytest.raises(PushError, match=told) as error:
        read_step(path)
    assert error.value.remedy


def test_every_format_has_one_reader() -> None:
    assert sorted(reader.step_format for reader in READERS) == sorted(FORMATS)


def test_a_file_of_any_size_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"PAR1" + bytes(10 * HEAD_BYTES))
    assert len(Opening.of(path).head) == HEAD_BYTES
    assert reader_of(path).step_format == "parquet"
    assert reader_of(path, "json").step_format == "json"  # what a user names goes before


#: Lengths of headers whose bytes are the beginning of something else.
SPELT = {
    **{f"a pickle of protocol {number}": 0x80 + 256 * number for number in (2, 3, 4, 5)},
    "gzip": 0x8B1F,
    "a JSON object": 3 * 256 + ord("{"),
    "a JSON list": 3 * 256 + ord("["),
    "a blank, then a JSON object": 256 * ord("{") + ord(" "),
}


@pytest.mark.parametrize("length", SPELT.values(), ids=SPELT)
@pytest.mark.parametrize("name", ["step.safetensors", "upload"])
@pytest.mark.parametrize("named", [None, "safetensors"])
def test_a_length_that_spells_a_magic_number(
    tmp_path: Path, length: int, name: str, named: Any
) -> None:
    tensors = {**FLAT, "cu_seqlens": np.array([0, 2, 3], dtype=np.int32)}
    whole = save(tensors, {"schema_version": "1"})
    held = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + held].rstrip().ljust(length)
    (tmp_path / name).write_bytes(length.to_bytes(8, "little") + header + whole[8 + held :])
    assert read_step(tmp_path / name, named).tokens == 3


def member(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
        for name, data in members.items():
            written.writestr(f"{name}.npy", data)
    return path


def test_an_archive_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    given = member(FLAT["rollout_logprobs"]).replace(b"(3,)", b"(9,)")
    refused(archive(tmp_path / "step.npz", rollout_logprobs=given), "has 12 bytes of data")
    given = member(FLAT["rollout_logprobs"]).replace(b"NUMPY", b"NIMPY")
    refused(archive(tmp_path / "step.npz", rollout_logprobs=given), "not an array as numpy")


def test_an_archive_that_unpacks_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = archive(tmp_path / "step.npz", rollout_logprobs=member(np.zeros(10**6, np.float32)))
    assert bomb.stat().st_size < 10_000
    monkeypatch.setattr(npz, "MAX_FILE_BYTES", 10**6)
    refused(bomb, "bytes unpacked, accepted are 1,000,000")


def test_arrays_that_are_no_tensors(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz", **FLAT, cu_seqlens=[0, 2, 3], old_log_probs=FLAT["trainer_logprobs"]
    )
    refused(tmp_path / "a.npz", "'old_log_probs'; accepted are")
    np.savez(tmp_path / "b.npz", **FLAT, cu_seqlens=np.array([0.0, 2.0, 3.0]))
    refused(tmp_path / "b.npz", "cu_seqlens has dtype F64")
    big = {name: values.astype(">f4") for name, values in FLAT.items()}
    np.savez(tmp_path / "c.npz", **big, cu_seqlens=[0, 2, 3], model=np.array("m"))
    step = read_step(tmp_path / "c.npz")
    assert step.metadata["model"] == "m" and step.rollout.tolist() == [-0.5, -1.0, -2.0]


@pytest.mark.parametrize(
    ("limit", "most", "told"),
    [
        ("MAX_SEQUENCES", 1, "2 sequences, accepted are 1"),
        ("MAX_FILE_BYTES", 10, "bytes unpacked, accepted are 10"),
        ("MAX_ARROW_BATCHES", 1, "2 row groups, accepted are 1"),
        ("MAX_TOKENS", -(2**20), "3 tokens in a column"),
    ],
)
def test_parquet_beyond_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, told: str
) -> None:
    pq.write_table(pa.table(SIDES), tmp_path / "step.parquet", row_group_size=1)
    assert read_step(tmp_path / "step.parquet").tokens == 3
    monkeypatch.setattr(parquet, limit, most)
    refused(tmp_path / "step.parquet", told)


def test_parquet_of_pandas_kind_and_its_metadata(tmp_path: Path) -> None:
    table = pa.table({**SIDES, "advantages": [0.5, -0.5], "rank": [0, 1]})
    described = {"pandas": '{"columns": []}', "model": "m"}
    pq.write_table(table.replace_schema_metadata(described), tmp_path / "step.parquet")
    step = read_step(tmp_path / "step.parquet")
    assert step.metadata == {"schema_version": "1", "model": "m"}
    assert step.advantages is not None and step.advantages.tolist() == [0.5, 0.5, -0.5]
    assert step.extras.rank is not None and step.extras.rank.tolist() == [0, 1]
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "step.parquet").read_bytes()[:-9])
    refused(tmp_path / "cut.parquet", "not a valid Parquet file")


def lines(path: Path, *given: Any) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in given))
    return path


def test_samples_that_do_not_count_are_masked(tmp_path: Path) -> None:
    path = lines(tmp_path / "train_data_step7.jsonl", NEMO, NEMO | {"sample_loss_mask": 0.0})
    step = read_step(path)
    assert step.cu_seqlens.tolist() == [0, 2, 4]
    assert step.mask.tolist() == [True, True, False, False]
    assert step.metadata["step"] == "7" and step.metadata["framework"] == FRAMEWORK
    assert step.extras.prompt_lengths is not None
    assert step.extras.prompt_lengths.tolist() == [1, 1]
    assert step.advantages is not None and set(step.advantages.tolist()) == {0.5}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"token_ids": [1, 2]}, "line 2: generation_logprobs has 4 values, token_ids has 2"),
        ({"token_loss_mask": [0, 0.5, 1, 0]}, "line 2: token_loss_mask cannot be read"),
        ({"sample_loss_mask": "x"}, "line 2: sample_loss_mask cannot be read"),
        ({"prev_logprobs": None}, "line 2: prev_logprobs cannot be read"),
    ],
)
def test_training_data_that_is_damaged(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    refused(lines(tmp_path / "step.jsonl", NEMO, NEMO | change), told)


RECORD: dict[str, Any] = {"rollout_logprobs": [-0.5], "trainer_logprobs": [-1.0], "rank": 0}


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (
            {"rollout_logprobs": [-0.5], "trainer_logprobs": [-1.0]},
            "line 1 has rank, line 2 does not",
        ),
        (RECORD | {"losses": [1.0]}, "line 2 has a field 'losses'"),
        (RECORD | {"metadata": {"model": "m"}}, "the metadata of line 2 are not those of line 1"),
        (RECORD | {"trainer_logprobs": "x"}, "line 2: trainer_logprobs cannot be read"),
        ({"rollout_logprobs": [-0.5], "rank": 1}, "line 2 has no trainer_logprobs"),
        ([1], "line 2 is a JSON list"),
    ],
)
def test_records_that_are_not_alike(tmp_path: Path, second: Any, told: str) -> None:
    refused(lines(tmp_path / "step.jsonl", RECORD, second), told)


def test_records_beyond_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path / "step.jsonl", RECORD, RECORD)
    monkeypatch.setattr(records, "MAX_TOKENS", 1)
    refused(path, "beyond 1 tokens")


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_are_refused_or_steps(tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from([".npz", ".parquet", ".jsonl", ".csv", ".json"]))
    columns = ColumnNames(side="rollout") if suffix == ".json" else AS_THEY_ARE
    path = tmp_path / f"step{suffix}"
    if suffix == ".npz":
        save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
        save(path, **FLAT, cu_seqlens=[0, 2, 3])
    elif suffix == ".parquet":
        pq.write_table(pa.table(SIDES), path)
    elif suffix == ".csv":
        path.write_text("sequence,rollout_logprobs,trainer_logprobs\n0,-0.5,-1\n0,-1,\n1,-2,-2\n")
    elif suffix == ".json":
        triples = [[-0.5, 7, None], [-1.0, 8, "b"]]
        path.write_text(json.dumps([{"meta_info": {"output_token_logprobs": triples}}] * 2))
    else:
        lines(path, NEMO, NEMO)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(whole[: data.draw(st.integers(1, len(whole)))]))
    try:
        step = read_step(path, None, columns)
    except PushError as error:
        assert error.message and error.remedy
        assert all(one.text for one in looks_of(path))
    else:
        assert step.cu_seqlens[-1] == step.tokens == step.trainer.size


def test_a_line_with_a_whole_batch(tmp_path: Path) -> None:
    batch = {**SIDES, "advantages": [0.5, -0.5], "reward": [1.0, 0.0], "metadata": {"model": "m"}}
    step = read_step(lines(tmp_path / "step.jsonl", batch))
    assert step.cu_seqlens.tolist() == [0, 2, 3] and step.metadata["model"] == "m"
    assert step.advantages is not None and step.advantages.tolist() == [0.5, 0.5, -0.5]


def test_rows_of_one_length(tmp_path: Path) -> None:
    even = pa.list_(pa.float32(), 2)
    rows = [[-0.5, -1.0], [-2.0, 0.0]]
    columns = {name: pa.array(rows, even) for name in SIDES}
    table = pa.table({**columns, "mask": pa.array([[1, 1], [1, 0]], pa.list_(pa.int64(), 2))})
    pq.write_table(table, tmp_path / "step.parquet")
    step = read_step(tmp_path / "step.parquet")
    assert step.cu_seqlens.tolist() == [0, 2, 4] and step.mask.tolist() == [True, True, True, False]


def test_a_dump_of_text_is_none_where_it_holds_log_probabilities() -> None:
    verl = ["input", "output", "score"]
    assert not_a_step(verl) is not None and not_a_step(["prompt", "completion"]) is not None
    assert not_a_step([*verl, "rollout_log_probs"]) is None
