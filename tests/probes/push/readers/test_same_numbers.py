"""The same tensors through every format: the same bits, whatever wrote them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from driftscope_probes.push import FORMATS, read_step

Rows = Mapping[str, list[NDArray[np.float32]]]
#: Any float32 but those that CSV spells in many ways, and 0, which padding is.
VALUES = st.floats(width=32, allow_nan=False, allow_infinity=False).filter(bool)
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=6)


def _flat(rows: Rows) -> dict[str, Any]:
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def _limits(rows: Rows) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, rows["rollout_logprobs"])])


def _padded(rows: Rows) -> dict[str, Any]:
    lengths = [part.size for part in rows["rollout_logprobs"]]
    inside = np.arange(max(lengths)) < np.array(lengths)[:, None]
    found: dict[str, Any] = {"mask": inside.astype(np.int64)}
    for name, values in _flat(rows).items():
        found[name] = np.zeros(inside.shape, np.float32)
        found[name][inside] = values
    return found


def _lists(rows: Rows) -> dict[str, Any]:
    return {name: [part.tolist() for part in parts] for name, parts in rows.items()}


def _records(rows: Rows) -> list[dict[str, Any]]:
    lists = _lists(rows)
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _csv(path: Path, rows: Rows, delimiter: str = ",") -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["sequence", *rows])
        for number, parts in enumerate(zip(*rows.values(), strict=True)):
            writer.writerows([number, *map(repr, values)] for values in np.stack(parts, 1).tolist())


def _token_table(rows: Rows, kind: Any) -> Any:
    number = np.repeat(np.arange(len(rows["rollout_logprobs"])), np.diff(_limits(rows)))
    columns = {name: pa.array(values, kind) for name, values in _flat(rows).items()}
    return pa.table({"sequence_id": number, **columns})


def _arrow(path: Path, rows: Rows) -> None:
    table = pa.table({n: pa.array(v, pa.list_(pa.float32())) for n, v in _lists(rows).items()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def _renamed(rows: Rows) -> dict[str, Any]:
    names = {"rollout_logprobs": "generation_logprobs", "trainer_logprobs": "prev_logprobs"}
    return {names[name]: values for name, values in _lists(rows).items()}


WRITERS: dict[str, Callable[[Path, Rows], Any]] = {
    "packed.safetensors": lambda path, rows: save_file(
        {**_flat(rows), "cu_seqlens": _limits(rows)}, path
    ),
    "float64.safetensors": lambda path, rows: save_file(
        {
            **{name: values.astype(np.float64) for name, values in _flat(rows).items()},
            "cu_seqlens": _limits(rows),
        },
        path,
    ),
    "padded.safetensors": lambda path, rows: save_file(_padded(rows), path),
    "packed.npz": lambda path, rows: np.savez(path, **_flat(rows), cu_seqlens=_limits(rows)),
    "padded.npz": lambda path, rows: np.savez_compressed(path, **_padded(rows)),
    "step.json": lambda path, rows: path.write_text(json.dumps(_lists(rows))),
    "flat.json": lambda path, rows: path.write_text(
        json.dumps(
            {
                **{name: values.tolist() for name, values in _flat(rows).items()},
                "cu_seqlens": _limits(rows).tolist(),
            }
        )
    ),
    "list.json": lambda path, rows: path.write_text(json.dumps(_records(rows))),
    "renamed.json": lambda path, rows: path.write_text(json.dumps(_renamed(rows))),
    "step.jsonl": lambda path, rows: path.write_text("\n".join(map(json.dumps, _records(rows)))),
    "lists.parquet": lambda path, rows: pq.write_table(pa.table(_lists(rows)), path),
    "tokens.parquet": lambda path, rows: pq.write_table(_token_table(rows, pa.float32()), path),
    "tokens64.parquet": lambda path, rows: pq.write_table(_token_table(rows, pa.float64()), path),
    "step.arrows": _arrow,
    "step.csv": _csv,
    "step.tsv": lambda path, rows: _csv(path, rows, "\t"),
}
#: Formats of one side or of a framework, which test_answers.py and the others hold.
ELSEWHERE = {"openai", "sglang", "prime-rl", "nemo-rl"}


def test_every_format_of_our_own_is_written_here() -> None:
    suffixes = {"arrows": "arrow", "tsv": "csv"}
    written = {suffixes.get(name.partition(".")[2], name.partition(".")[2]) for name in WRITERS}
    assert written == set(FORMATS) - ELSEWHERE


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn=st.lists(PAIRS, min_size=1, max_size=4))
def test_the_same_bits(tmp_path: Path, drawn: list[list[tuple[float, float]]]) -> None:
    rows: Rows = {
        name: [np.array([pair[side] for pair in pairs], np.float32) for pairs in drawn]
        for side, name in enumerate(("rollout_logprobs", "trainer_logprobs"))
    }
    for name, write in WRITERS.items():
        write(tmp_path / name, rows)
        step = read_step(tmp_path / name)
        for values, ours in (
            (step.rollout, "rollout_logprobs"),
            (step.trainer, "trainer_logprobs"),
        ):
            assert values.dtype == np.float32, name
            assert values.tobytes() == np.concatenate(rows[ours]).tobytes(), name
        assert step.cu_seqlens.tolist() == _limits(rows).tolist(), name


@pytest.mark.parametrize("name", [name for name in WRITERS if not name.startswith("padded")])
def test_what_is_not_finite_stays_so(tmp_path: Path, name: str) -> None:
    """NaN is NaN everywhere; infinite values keep their sign."""
    odd = np.array([-0.5, np.nan, -np.inf, np.inf, -0.25], np.float32)
    WRITERS[name](tmp_path / name, {"rollout_logprobs": [odd], "trainer_logprobs": [odd[::-1]]})
    step = read_step(tmp_path / name)
    np.testing.assert_array_equal(step.rollout, odd)
    np.testing.assert_array_equal(step.trainer, odd[::-1])
