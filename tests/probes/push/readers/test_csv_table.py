"""Tables with one token per row: with and without names, with and without sequences."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftscope_probes.push import PushError, read_step
from driftscope_probes.push.column_names import ColumnNames, parse_columns
from driftscope_probes.push.readers import csv_table, token_rows

HEADER = "rollout_logprobs,trainer_logprobs\n"


def written(tmp_path: Path, text: str, name: str = "step.csv") -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_two_columns_are_one_sequence(tmp_path: Path) -> None:
    step = read_step(written(tmp_path, "\ufeff" + HEADER + "-0.5,-1\n,-2\r\n-3,nan\n"))
    assert step.cu_seqlens.tolist() == [0, 3]
    assert str(step.rollout.tolist()) == "[-0.5, nan, -3.0]"
    assert str(step.trainer.tolist()) == "[-1.0, -2.0, nan]"


@pytest.mark.parametrize("name", ["sequence", "sample_id", "idx"])
def test_rows_of_a_sequence_may_stand_apart(tmp_path: Path, name: str) -> None:
    text = f"{name};old_logprobs;engine_logprobs;token_ids\nb;-1;-2;7\na;-3;-4;8\nb;-5;-6;9\n"
    step = read_step(written(tmp_path, text))
    assert step.cu_seqlens.tolist() == [0, 2, 3]
    assert step.trainer.tolist() == [-1.0, -5.0, -3.0]
    assert step.tensors()["token_ids"].tolist() == [7, 9, 8]


def test_rows_without_names_are_mapped_by_number(tmp_path: Path) -> None:
    path = written(tmp_path, "0,-0.5,-1\n1,-2,-3\n")
    with pytest.raises(PushError, match="first row is numbers") as error:
        read_step(path)
    assert "--columns rollout_logprobs=1,trainer_logprobs=2" in str(error.value.remedy)
    mapped = parse_columns("rollout_logprobs=2,trainer_logprobs=3,sequence=1")
    step = read_step(path, None, ColumnNames(mapped))
    assert step.cu_seqlens.tolist() == [0, 1, 2] and step.trainer.tolist() == [-1.0, -3.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEADER, "no row"),
        (HEADER + "-0.5,-1\n-2\n", "not a table"),
        (HEADER + "-0.5,x\n", "trainer_logprobs is a column of string"),
        ("rollout_logprobs,logp\n-1,-1\n", "there is a column 'logp'"),
        ("rollout_logprobs,trainer_logprobs,trainer_logprobs\n-1,-1,-1\n", "two columns"),
        ("rollout_logprobs,trainer_logprobs,mask\n-1,-1,2\n", "mask has the value 2"),
        ("rollout_logprobs,trainer_logprobs,token_ids\n-1,-1,1.5\n", "token_ids is a column of"),
        ("rollout_logprobs,trainer_logprobs,token_ids\n-1,-1,\n-1,-1,3\n", "empty in 1 rows"),
        ("sequence,rollout_logprobs,trainer_logprobs\n,-1,-1\n1,-1,-1\n", "name no sequence"),
        ("text", "not the names of two columns"),
    ],
)
def test_tables_that_are_no_step(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(PushError, match=told) as error:
        read_step(written(tmp_path, text))
    assert error.value.remedy


def test_a_table_beyond_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, HEADER + "-0.5,-1\n-2,-1\n")
    monkeypatch.setattr(token_rows, "MAX_TOKENS", 1)
    with pytest.raises(PushError, match="2 rows, accepted are 1"):
        read_step(path)
    monkeypatch.setattr(csv_table, "MAX_FILE_BYTES", 10)
    with pytest.raises(PushError, match="more than 10 bytes"):
        read_step(path)


def test_parquet_with_one_token_per_row(tmp_path: Path) -> None:
    columns = {
        "text": ["a", "b", "c"],
        "seq": ["x", "x", "y"],
        "vllm_logprobs": [-0.5, None, -2.0],
        "train_logprobs": [-1.0, -2.0, -3.0],
        "loss_mask": [True, True, False],
    }
    pq.write_table(pa.table(columns), tmp_path / "step.parquet")
    step = read_step(tmp_path / "step.parquet")
    assert step.cu_seqlens.tolist() == [0, 2, 3] and step.mask.tolist() == [True, True, False]
    assert str(step.rollout.tolist()) == "[-0.5, nan, -2.0]"


def test_a_cell_of_text_is_named_with_its_row(tmp_path: Path) -> None:
    file = tmp_path / "step.csv"
    file.write_text("rollout_logprobs,trainer_logprobs\n-0.5,-0.5\n-0.5,abc\n")
    with pytest.raises(PushError, match=r"row 2 of the data is 'abc'"):
        read_step(file)


def test_two_columns_of_any_name_are_asked_for_by_name(tmp_path: Path) -> None:
    file = tmp_path / "step.csv"
    file.write_text("mask,mu,pi\n1,-0.5,-0.5\n")
    with pytest.raises(PushError) as refused:
        read_step(file)
    assert "--columns rollout_logprobs=mu,trainer_logprobs=pi" in (refused.value.remedy or "")
