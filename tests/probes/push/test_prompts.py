"""prompt_token_ids: the prompts of a step in every format, and what does not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from driftscope_client.errors import MalformedStep
from driftscope_client.layouts import step_tensors
from driftscope_client.snapshot import snapshot
from driftscope_probes.push import PushError, read_step
from driftscope_probes.push.step_file import join_steps
from driftscope_service.runs.store.token_files import read_tokens, write_tokens

PROMPTS = [[7, 8, 9], [], [5]]
RESPONSES = [[-0.5, -1.0], [-0.25], [-2.0, -0.125, -1.5]]
FLAT: Mapping[str, np.ndarray[Any, Any]] = {
    "rollout_logprobs": np.concatenate(RESPONSES).astype(np.float32),
    "trainer_logprobs": np.concatenate(RESPONSES).astype(np.float32),
    "cu_seqlens": np.array([0, 2, 3, 6], np.int32),
    "prompt_lengths": np.array([3, 0, 1], np.int32),
    "prompt_token_ids": np.array([7, 8, 9, 5], np.int32),
}


def safetensors(folder: Path, **changed: Any) -> Path:
    path = folder / "step.safetensors"
    tensors = {**FLAT, **changed}
    save_file({name: one for name, one in tensors.items() if one is not None}, path)
    return path


def lists() -> dict[str, Any]:
    sides = {"rollout_logprobs": RESPONSES, "trainer_logprobs": RESPONSES}
    return {**sides, "prompt_token_ids": PROMPTS}


def as_json(folder: Path) -> Path:
    path = folder / "step.json"
    path.write_text(json.dumps(lists()))
    return path


def as_json_lines(folder: Path) -> Path:
    path = folder / "step.jsonl"
    rows = [{name: column[i] for name, column in lists().items()} for i in range(3)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def as_arrow(folder: Path) -> Path:
    path = folder / "step.arrow"
    ids = pa.array(PROMPTS, pa.list_(pa.int32()))
    columns = {
        name: pa.array(RESPONSES, pa.list_(pa.float32()))
        for name in ("rollout_logprobs", "trainer_logprobs")
    }
    table = pa.table({**columns, "prompt_token_ids": ids})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("write", [safetensors, as_json, as_json_lines, as_arrow])
def test_prompts_are_read_in_every_format(write: Any, tmp_path: Path) -> None:
    step = read_step(write(tmp_path))
    prompts = step.prompts
    assert prompts is not None and [one.tolist() for one in prompts] == PROMPTS
    assert step.extras.prompt_lengths is not None
    assert step.extras.prompt_lengths.tolist() == [3, 0, 1]


def test_stored_tokens_keep_them_and_shards_join_them(tmp_path: Path) -> None:
    step = read_step(safetensors(tmp_path))
    both = join_steps([step, step])
    write_tokens(tmp_path / "step.parquet", both)
    prompts = read_tokens(tmp_path / "step.parquet").prompts
    assert prompts is not None and [one.tolist() for one in prompts] == PROMPTS * 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prompt_lengths": None}, "no prompt_lengths"),
        ({"prompt_lengths": np.array([3, 0, 2], np.int32)}, "as many ids as prompt_lengths"),
        ({"prompt_token_ids": np.ones((3, 4), np.int32)}, "accepted is a flat one"),
    ],
)
def test_what_does_not_fit_is_said(changed: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(PushError, match=words):
        read_step(safetensors(tmp_path, **changed))


def test_the_client_sends_what_the_reader_takes() -> None:
    given = {**lists(), "prompt_lengths": [3, 0, 1]}
    tensors = step_tensors(snapshot(given))
    assert tensors["prompt_token_ids"].dtype == "I32"
    assert tensors["prompt_token_ids"].values.tolist() == [7, 8, 9, 5]
    with pytest.raises(MalformedStep, match="no prompt_lengths"):
        step_tensors(snapshot(lists()))
    with pytest.raises(MalformedStep, match="as prompt_lengths come to"):
        step_tensors(snapshot({**given, "prompt_lengths": [3, 0, 3]}))
