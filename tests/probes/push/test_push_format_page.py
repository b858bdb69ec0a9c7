"""docs/push-format.md: its examples work, and its tables say what the code does."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftscope_probes.push import read_step, rules
from driftscope_probes.push.arrow_step import ARROW_TYPES
from driftscope_probes.push.json_step import COLUMNS
from driftscope_probes.push.rules import RULES
from driftscope_probes.push.zstd_stream import MAX_WINDOW_BYTES, RATIO_FROM_BYTES

PAGE = (Path(__file__).parents[3] / "docs" / "push-format.md").read_text(encoding="utf-8")


def block(language: str, place: int = 0) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found[place]


def test_the_recipe(tmp_path: Path) -> None:
    recipe = block("python")
    assert len(recipe.strip().splitlines()) <= 10
    names: dict[str, Any] = {}
    exec(compile(recipe, "push-format.md", "exec"), names)
    rollout = [[-0.5, -1.0], [-0.25], [float("-inf"), 0.0, -3.0]]
    trainer = [[-0.5, -1.125], [-0.25], [-2.0, 0.0, -3.0]]
    token_ids = [[1, 2], [3], [4, 5, 6]]
    path = tmp_path / "step.safetensors"
    names["write_step"](path, rollout, trainer, token_ids, model="my-model", rollout_dtype="bf16")
    step = read_step(path)
    assert step.cu_seqlens.tolist() == [0, 2, 3, 6]
    assert step.rollout.tolist() == [-0.5, -1.0, -0.25, -np.inf, 0.0, -3.0]
    assert step.tensors()["token_ids"].tolist() == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert step.metadata["model"] == "my-model"


def test_the_json_example(tmp_path: Path) -> None:
    (tmp_path / "step.json").write_text(block("json"))
    step = read_step(tmp_path / "step.json")
    assert (step.sequences, step.tokens) == (2, 3)
    assert set(json.loads(block("json"))) - {"metadata"} <= set(COLUMNS)


def test_the_arrow_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python", 1), "push-format.md", "exec"), {})
    step = read_step(tmp_path / "step-12.arrows")
    assert step.cu_seqlens.tolist() == [0, 2, 3]
    assert step.tensors()["token_ids"].tolist() == [11, 12, 13]
    assert step.tensors()["behavior_version"].tolist() == [
        7,
        7,
    ]
    assert step.metadata == {"schema_version": "1", "model": "my-model"}


def test_every_arrow_type_is_listed_as_the_code_has_it() -> None:
    rows = re.findall(r"^\| ([A-Z0-9]+) \| `list<(\w+)>`", PAGE, re.MULTILINE)
    assert dict(rows) == {name: str(kind) for name, kind in ARROW_TYPES.items()}


def test_every_tensor_is_listed_as_the_code_has_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \| \[.*?\] \| ([A-Z0-9, ]+) \|", PAGE, re.MULTILINE)
    assert {name: tuple(kinds.split(", ")) for name, kinds in rows} == {
        name: rule.dtypes for name, rule in RULES.items()
    }


@pytest.mark.parametrize(
    "stated",
    [
        f"| {rules.MAX_TOKENS:,} |",
        f"| {rules.MAX_SEQUENCES:,} |",
        f"| {rules.MAX_FILE_BYTES // 2**30} GiB |",
        f"| {rules.MAX_HEADER_BYTES // 2**10} KiB |",
        f"GiB, {rules.MAX_HEADER_BYTES // 2**10} KiB per header, "
        f"{rules.MAX_ARROW_BATCHES:,} batches |",
        f"together | {rules.MAX_JOINED_BYTES // 2**30} GiB in memory |",
        f"{rules.MAX_ZSTD_RATIO:g} times what was received, from {RATIO_FROM_BYTES // 2**20} MiB",
        f"at most {MAX_WINDOW_BYTES // 2**20} MiB (RFC 9659",
        f"| {rules.MAX_JSON_BYTES // 2**20} MiB |",
        f"| {rules.MAX_EXPORT_BYTES // 2**30} GiB, {rules.MAX_EXPORT_LINE_BYTES // 2**20} MiB ",
        f"{rules.MAX_METADATA_ENTRIES} entries of {rules.MAX_METADATA_CHARACTERS:,} ",
        f"(`environments`: {rules.MAX_ENVIRONMENTS_CHARACTERS:,})",
    ],
)
def test_every_limit_is_stated_as_it_is(stated: str) -> None:
    assert stated in PAGE
