"""Bit by bit what was written, whole or not there at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from driftscope_probes.durable_file import PARTIAL
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.rules import RULES
from driftscope_probes.tokens import SEQUENCE_LABELS
from driftscope_service.runs.store.token_files import (
    TokenFileError,
    read_tokens,
    write_tokens,
)

STORE = "driftscope_service.runs.store.token_files"
#: Quiet and signalling NaN with payloads, infinities, both zeros, the smallest number, a positive.
ODD_BITS = [
    0x7FC00001,
    0xFFABCDEF,
    0x7F800001,
    0x7F800000,
    0xFF800000,
    0,
    0x80000000,
    1,
    0x40000000,
]
#: Prompts have a test of their own: their number is that of the prompt_lengths.
APART = ("cu_seqlens", "mask", "prompt_token_ids")
OPTIONAL = [name for name in RULES if name not in APART][2:]


#: How each dtype of experts is stored.
EXPERTS = ("u1", "<i2", "<u2", "<i4")


def expert_ids(random: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    held = np.iinfo(dtype)
    return random.integers(max(-1, held.min), held.max, shape, endpoint=True).astype(dtype)


def step_of(
    lengths: list[int],
    names: list[str],
    seed: int,
    inner: tuple[int, int],
    experts: tuple[str, str] = ("u1", "<i2"),
) -> PushedStep:
    random = np.random.default_rng(seed)
    tokens = sum(lengths)
    ids = random.integers(-(2**31), 2**31, tokens).astype(np.int32)
    odd = random.choice(np.array(ODD_BITS, np.uint32), tokens).view(np.float32)
    every: dict[str, NDArray[Any]] = {
        "token_ids": ids,
        "rollout_token_ids": ids ^ random.integers(0, 2, tokens).astype(np.int32),
        "advantages": odd[::-1].copy(),
        "entropy": random.random(tokens, dtype=np.float32),
        "position_ids": ids[::-1].copy(),
        "turn_ids": np.zeros(tokens, np.int32),
        "behavior_version": random.integers(0, 9, len(lengths)).astype(np.int32),
        "token_behavior_version": random.integers(0, 9, tokens).astype(np.int32),
        "rank": random.integers(0, 2**31, len(lengths)).astype(np.int32),
        "replica": random.integers(0, 3, len(lengths)).astype(np.int32),
        "cached_tokens": random.integers(0, 2**30, len(lengths)).astype(np.int32),
        "prompt_lengths": random.integers(2**30, 2**31, len(lengths)).astype(np.int32),
        "environment": random.integers(0, 2, len(lengths)).astype(np.int32),
        "routed_experts": expert_ids(random, experts[0], (tokens, *inner)),
        "trainer_routed_experts": expert_ids(random, experts[1], (tokens, *inner)),
    }
    given: Any = {name: every[name] for name in names}
    tensors = {
        "rollout_logprobs": odd,
        "trainer_logprobs": -random.random(tokens, dtype=np.float32),
        "cu_seqlens": np.array([*accumulate(lengths, initial=0)], np.int64),
        "mask": random.random(tokens) < 0.5,
        **given,
    }
    metadata = {"schema_version": "1", "model": "modèle 模型", "pandas": "{", "huggingface": "["}
    metadata["environments"] = "math,模型"
    return pushed_step(tensors, metadata)


def assert_same(one: PushedStep, other: PushedStep) -> None:
    assert one.metadata == other.metadata
    assert one.tensors().keys() == other.tensors().keys()
    for name, tensor in one.tensors().items():
        expected = other.tensors()[name]
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape), name
        assert tensor.tobytes() == expected.tobytes(), name


@pytest.fixture
def step() -> PushedStep:
    return step_of([3, 0, 4], OPTIONAL, seed=7, inner=(2, 3))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    names=st.sets(st.sampled_from(OPTIONAL)),
    seed=st.integers(0, 2**32),
    inner=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    experts=st.tuples(st.sampled_from(EXPERTS), st.sampled_from(EXPERTS)),
    group_tokens=st.integers(1, 60),
    group_bytes=st.integers(1, 5000),
)
def test_every_bit_comes_back(
    tmp_path: Path,
    lengths: list[int],
    names: set[str],
    seed: int,
    inner: tuple[int, int],
    experts: tuple[str, str],
    group_tokens: int,
    group_bytes: int,
) -> None:
    step = step_of(lengths, sorted(names), seed, inner, experts)
    path = tmp_path / "step.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{STORE}.GROUP_TOKENS", group_tokens)
        patch.setattr(f"{STORE}.GROUP_BYTES", group_bytes)
        size = write_tokens(path, step)
    assert [size] == [file.stat().st_size for file in tmp_path.iterdir()]
    assert_same(read_tokens(path), step)
    parquet = pq.ParquetFile(path)
    rows = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    edges = [*accumulate(rows, initial=0)]
    assert edges[-1] == len(lengths)
    for first, last in zip(edges, edges[1:], strict=False):
        assert last - first == 1 or sum(lengths[first:last]) <= group_tokens


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bits=arrays.arrays(np.uint32, 5))
def test_any_bits_at_all(tmp_path: Path, bits: NDArray[np.uint32]) -> None:
    floats = bits.view(np.float32)
    limits, mask = np.array([0, 5]), np.ones(5, bool)
    step = PushedStep(floats, floats[::-1].copy(), limits, mask)
    write_tokens(tmp_path / "step.parquet", step)
    assert_same(read_tokens(tmp_path / "step.parquet"), step)


def test_what_other_readers_see(step: PushedStep, tmp_path: Path) -> None:
    path = tmp_path / "step.parquet"
    write_tokens(path, step)
    table = pq.read_table(path)
    assert set(table.column_names) == set(step.tensors()) - {"cu_seqlens"}
    assert table.num_rows == step.sequences
    for name in SEQUENCE_LABELS:
        assert table.column(name).to_pylist() == step.tensors()[name].tolist()
    ids = table.column("token_ids").to_pylist()
    token_ids = step.extras.token_ids
    assert token_ids is not None
    assert ids == [token_ids[step.sequence(i)].tolist() for i in range(step.sequences)]
    assert step.trainer_routed_experts is not None
    assert table.column("trainer_routed_experts").to_pylist() == [
        step.trainer_routed_experts[step.sequence(i)].astype("<i2").tobytes()
        for i in range(step.sequences)
    ]
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in column.encodings


def test_a_step_is_replaced_at_once_or_not_at_all(
    step: PushedStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "step.parquet"
    write_tokens(path, step)
    other = step_of([1], [], seed=1, inner=(1, 1))

    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="Input/output"):
            write_tokens(path, other)
    assert [file.name for file in tmp_path.iterdir()] == ["step.parquet"]
    assert_same(read_tokens(path), step)
    write_tokens(path, other)
    assert_same(read_tokens(path), other)


def test_a_full_disk_leaves_nothing(step: PushedStep, tmp_path: Path) -> None:
    """/dev/full answers every write with ENOSPC."""
    (tmp_path / "step.parquet.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_tokens(tmp_path / "step.parquet", step)
    assert list(tmp_path.iterdir()) == []


def test_what_is_on_disk_when_it_is_renamed(
    step: PushedStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, rename = os.fsync, Path.rename

    def noted_sync(descriptor: int) -> None:
        calls.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    write_tokens(tmp_path / "step.parquet", step)
    assert calls == ["step.parquet.partial", "rename", tmp_path.name]


KILLED = """
import sys
from pathlib import Path
import numpy as np
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_service.runs.store.token_files import write_tokens
tokens = 2**21
values = np.random.default_rng(0).random(tokens, dtype=np.float32)
step = PushedStep(values, -values, np.arange(0, tokens + 1, 2**12), np.ones(tokens, bool))
print("ready", flush=True)
for number in range(1000):
    write_tokens(Path(sys.argv[1]) / f"{number}.parquet", step)
    print(number, flush=True)
"""


def test_killed_at_any_moment_each_file_is_whole(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        while not list(tmp_path.glob("1.parquet.partial")):
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        told = writer.stdout.read().split()
    assert "0" in told
    assert (tmp_path / "1.parquet.partial").exists() or (tmp_path / "1.parquet").exists()
    left = [file for file in tmp_path.iterdir() if file.suffix != PARTIAL]
    assert tmp_path / "0.parquet" in left
    for file in left:
        assert read_tokens(file).tokens == 2**21


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_told(
    step: PushedStep, tmp_path: Path, place: float, bit: int, cut: bool
) -> None:
    """Some bytes of the footer say nothing; whatever is read is what was written."""
    path = tmp_path / "step.parquet"
    if not path.exists():
        write_tokens(path, step)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    at = int(place * len(whole))
    damaged[at] ^= 1 << bit
    file = tmp_path / "damaged.parquet"
    file.write_bytes(whole[:at] if cut else damaged)
    try:
        read = read_tokens(file)
    except TokenFileError as error:
        assert "damaged.parquet is damaged" in str(error)
    else:
        assert not cut
        assert_same(read, step)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_tokens(tmp_path / "absent.parquet")
