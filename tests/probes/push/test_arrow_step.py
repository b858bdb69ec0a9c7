"""Against the Arrow library's own writer: what is accepted is what was sent, all else refused."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from driftscope_probes.push import read_step, rules
from driftscope_probes.push.arrow_step import COLUMNS, read_arrow_step
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.rules import RULES, PushError
from driftscope_probes.tokens import SEQUENCE_LABELS

Tensors = dict[str, NDArray[Any]]
Columns = dict[str, Any]
fuzzed = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
#: Lengths, offsets and counts that a sender may claim, as 64-bit words.
WORDS = [0, 1, 7, 8, 64, 2**31 - 1, 2**31, 2**32, 2**53, 2**61, 2**63 - 1, 2**63, 2**64 - 1]


def lists(values: NDArray[Any], cu_seqlens: NDArray[Any], large: bool = False) -> Any:
    kind, offset = (pa.LargeListArray, np.int64) if large else (pa.ListArray, np.int32)
    return kind.from_arrays(pa.array(cu_seqlens.astype(offset)), pa.array(values))


def arrow_columns(tensors: Tensors, large: bool = False) -> Columns:
    return {
        name: lists(values, tensors["cu_seqlens"], large)
        if RULES[name].per == "token"
        else pa.array(values)
        for name, values in tensors.items()
        if name in COLUMNS
    }


def write_arrow(
    path: Path,
    columns: Columns,
    metadata: Any = None,
    rows_per_batch: int | None = None,
    compression: str | None = None,
) -> Path:
    table = pa.table(list(columns.values()), names=list(columns))
    table = table.replace_schema_metadata(metadata or {"schema_version": "1", "model": "m"})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file:
        with pa.ipc.new_stream(file, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=rows_per_batch)
    return path


@pytest.fixture
def columns(tensors: Tensors) -> Columns:
    return arrow_columns(tensors)


@pytest.fixture
def arrow(columns: Columns, tmp_path: Path) -> Path:
    return write_arrow(tmp_path / "step.arrows", columns, rows_per_batch=2)


def assert_as_sent(step: PushedStep, tensors: Tensors) -> None:
    sent = {name: tensors[name] for name in tensors if name in (*COLUMNS, "cu_seqlens")}
    assert set(step.tensors()) == {*sent, "mask"}
    for name, values in sent.items():
        read = step.tensors()[name]
        np.testing.assert_array_equal(read, values.astype(read.dtype), err_msg=name)


def refused(path: Path, told: str) -> None:
    with pytest.raises(PushError, match=told) as caught:
        read_arrow_step(path)
    assert caught.value.remedy
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("rows_per_batch", [1, 2, 3])
def test_every_column_is_read(
    tensors: Tensors, tmp_path: Path, large: bool, rows_per_batch: int
) -> None:
    path = tmp_path / "step.arrows"
    write_arrow(path, arrow_columns(tensors, large), rows_per_batch=rows_per_batch)
    step = read_step(path)
    assert_as_sent(step, tensors)
    assert step.trainer.dtype == np.float32
    assert step.metadata == {"schema_version": "1", "model": "m"}


LOGPROBS = st.one_of(
    st.sampled_from([0.0, -0.0, float("nan"), float("inf"), float("-inf"), 2.5]),
    st.floats(width=16),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    dtype=st.sampled_from([np.float16, np.float32]),
    rows_per_batch=st.integers(1, 6),
    data=st.data(),
)
def test_round_trip_keeps_every_value(
    tmp_path: Path,
    lengths: list[int],
    dtype: type[Any],
    rows_per_batch: int,
    data: st.DataObject,
) -> None:
    tensors: Tensors = {
        name: data.draw(arrays.arrays(dtype, sum(lengths), elements=LOGPROBS))
        for name in ("rollout_logprobs", "trainer_logprobs")
    }
    tensors["cu_seqlens"] = np.cumsum([0, *lengths])
    tensors["mask"] = data.draw(arrays.arrays(np.bool_, sum(lengths)))
    for name in data.draw(st.sets(st.sampled_from(SEQUENCE_LABELS))):
        values = (
            st.integers(2**30, 2**31 - 1) if name == "prompt_lengths" else st.integers(0, 2**30)
        )
        tensors[name] = data.draw(arrays.arrays(np.int32, len(lengths), elements=values))
    path = write_arrow(
        tmp_path / "step.arrows", arrow_columns(tensors), rows_per_batch=rows_per_batch
    )
    step = read_arrow_step(path)
    assert_as_sent(step, tensors)
    np.testing.assert_array_equal(np.signbit(step.rollout), np.signbit(tensors["rollout_logprobs"]))


def test_a_slice_of_a_larger_table(tensors: Tensors, tmp_path: Path) -> None:
    """Its lists do not start at 0."""
    table = pa.table(arrow_columns(tensors)).slice(2, 1)
    path = write_arrow(tmp_path / "s.arrows", dict(zip(table.column_names, table, strict=True)))
    step = read_arrow_step(path)
    assert step.cu_seqlens.tolist() == [0, 4]
    np.testing.assert_array_equal(step.rollout, tensors["rollout_logprobs"][3:])


def test_sides_with_other_token_ids(tensors: Tensors, tmp_path: Path) -> None:
    tensors["rollout_token_ids"][4] += 1
    step = read_step(write_arrow(tmp_path / "step.arrows", arrow_columns(tensors)))
    assert_as_sent(step, tensors)


def test_an_environment_beyond_the_list(columns: Columns, tmp_path: Path) -> None:
    told = "environment is 1 for sequence 0, .* lists 1"
    refused(write_arrow(tmp_path / "s.arrows", columns, {"environments": "math"}), told)


def with_type(kind: Any) -> Callable[[Columns], Columns]:
    return lambda columns: {**columns, "entropy": pa.array([[0, 1, 2], [], [3, 4, 5, 6]], kind)}


def fixed_size(columns: Columns) -> Columns:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(6, np.float32)), 2)
    return {**columns, "entropy": flat}


def null_value(columns: Columns) -> Columns:
    values = columns["entropy"].to_pylist()
    values[0][1] = None
    return {**columns, "entropy": pa.array(values, pa.list_(pa.float32()))}


def null_list(columns: Columns) -> Columns:
    values = [*columns["entropy"].to_pylist()[:2], None]
    return {**columns, "entropy": pa.array(values, pa.list_(pa.float32()))}


def other_lengths(columns: Columns) -> Columns:
    mask = lists(np.ones(7, np.uint8), np.array([0, 2, 3, 7]))
    return {**columns, "mask": mask}


def labels(name: str, *values: int) -> Callable[[Columns], Columns]:
    return lambda columns: {**columns, name: pa.array(values, pa.int32())}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_type(pa.list_(pa.int64())), r"entropy is a column of 'list<item: int64>'"),
        (with_type(pa.list_(pa.uint16())), r"entropy .* accepted: list<float> or list<double> or"),
        (with_type(pa.list_(pa.int32())), "entropy is a column of"),
        (with_type(pa.list_(pa.field("a\n\x1bb", pa.int32()))), "entropy is a column of"),
        (with_type(pa.list_view(pa.float32())), "entropy is a column of"),
        (fixed_size, "entropy has 2 tokens in sequence 0"),
        (lambda c: {**c, "entropy": pa.array([1.0, 2.0, 3.0], pa.float32())}, "entropy is a col"),
        (
            lambda c: {**c, "behavior_version": pa.array([1.0, 2.0, 3.0])},
            "behavior_version .* 'double'",
        ),
        (lambda c: {**c, "behavior_version": pa.array([1, None, 3], pa.int32())}, "has 1 nulls"),
        (null_value, "entropy has 1 nulls"),
        (null_list, "entropy has 1 nulls"),
        (other_lengths, "sequences differ?"),
        (labels("rank", 0, -1, 0), "rank is -1 for sequence 1"),
        (labels("cached_tokens", 0, 0, 51), "cached_tokens is 51 for sequence 2, .* is 50"),
        (lambda c: {**c, "rank": c["token_ids"]}, "rank is a column of .* accepted: int32"),
        (lambda c: {**c, "replica": pa.array([0, None, 1], pa.int32())}, "replica has 1 nulls"),
        (lambda c: {**c, "mask": lists(np.full(7, 2, np.uint8), np.array([0, 3, 3, 7]))}, "mask"),
        (lambda c: {**c, "logprobs": c["entropy"]}, "there is a column 'logprobs'; accepted are"),
        (lambda c: {**c, "cu_seqlens": pa.array([0, 3, 3])}, "there is a column 'cu_seqlens'"),
        (lambda c: {**c, "routed_experts": c["mask"]}, "there is a column 'routed_experts'"),
        (lambda c: {k: c[k] for k in c if k != "trainer_logprobs"}, "there is no trainer_logprobs"),
        (lambda c: {k: c[k][:0] for k in c}, "it has no row"),
    ],
)
def test_what_is_refused(
    columns: Columns, tmp_path: Path, change: Callable[[Columns], Columns], told: str
) -> None:
    refused(write_arrow(tmp_path / "step.arrows", change(columns)), told)


def test_two_columns_of_one_name(columns: Columns, tmp_path: Path) -> None:
    table = pa.table([*columns.values(), columns["entropy"]], names=[*columns, "entropy"])
    with pa.OSFile(str(tmp_path / "s.arrows"), "wb") as file:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    refused(tmp_path / "s.arrows", "there are two columns entropy")


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        (pa.KeyValueMetadata([("model", "a"), ("model", "b")]), "1 of the 2 metadata names are"),
        ({"model": b"\xff"}, "not a valid Arrow stream: 'utf-8' codec"),
        ({"schema_version": "2"}, "schema_version is '2'"),
        ({"model": "m" * (rules.MAX_METADATA_CHARACTERS + 1)}, "longer than"),
        ({str(i): "" for i in range(rules.MAX_METADATA_ENTRIES + 1)}, "65 entries"),
    ],
)
def test_metadata(columns: Columns, tmp_path: Path, metadata: Any, told: str) -> None:
    refused(write_arrow(tmp_path / "s.arrows", columns, metadata), told)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_batches_are_refused(columns: Columns, tmp_path: Path, compression: str) -> None:
    path = write_arrow(tmp_path / "s.arrows", columns, compression=compression)
    refused(path, "batch 0 is compressed")


def test_dictionaries_are_refused(columns: Columns, tmp_path: Path) -> None:
    coded = pa.ListArray.from_arrays(
        pa.array([0, 3, 3, 7], pa.int32()), columns["entropy"].flatten().dictionary_encode()
    )
    refused(write_arrow(tmp_path / "s.arrows", {**columns, "entropy": coded}), "is a dictionary")


@pytest.mark.parametrize(
    ("limit", "most", "told"),
    [
        ("arrow_messages.MAX_ARROW_BATCHES", 1, "it has more than 1 batches"),
        ("arrow_messages.MAX_HEADER_BYTES", 64, "header of a message claims"),
        ("arrow_step.MAX_FILE_BYTES", 1000, "accepted are 1,000"),
        ("arrow_step.MAX_TOKENS", 6, "it has 7 tokens or more, accepted are 6"),
        ("arrow_step.MAX_SEQUENCES", 2, "it has 3 sequences or more, accepted are 2"),
    ],
)
def test_limits(
    arrow: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, told: str
) -> None:
    monkeypatch.setattr(f"driftscope_probes.push.{limit}", most)
    refused(arrow, told)


def test_the_end_mark_is_needed_and_ends(arrow: Path) -> None:
    """Without it a stream cut between two batches would pass for a whole one."""
    whole = arrow.read_bytes()
    arrow.write_bytes(whole[:-8])
    refused(arrow, "without an end mark")
    arrow.write_bytes(whole + whole)
    refused(arrow, "bytes after the end")
    arrow.write_bytes(whole[-8:])
    refused(arrow, "before the schema")


@pytest.mark.parametrize("other", [b"", b"ARROW1\0\0" + bytes(64), b"{}", b"PAR1" * 9, bytes(99)])
def test_another_format(tmp_path: Path, other: bytes) -> None:
    (tmp_path / "s.arrows").write_bytes(other)
    refused(tmp_path / "s.arrows", "no Arrow message at byte 0|without an end mark")


@pytest.fixture
def pool() -> Iterator[Any]:
    """What Arrow itself takes."""
    usual = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counted)
    yield counted
    pa.set_memory_pool(usual)


@fuzzed
@given(share=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_refused(arrow: Path, share: float) -> None:
    whole = arrow.read_bytes()
    cut = arrow.with_name("cut.arrows")
    cut.write_bytes(whole[: int(share * len(whole))])
    refused(cut, "ends after|claims a body|claims .* bytes")


def read_or_refused(path: Path, content: bytes | bytearray) -> PushedStep | None:
    path.write_bytes(content)
    try:
        return read_arrow_step(path)
    except PushError as error:
        assert error.remedy and error.message.isprintable()
        return None
    finally:
        assert len(list(path.parent.iterdir())) == 2


@fuzzed
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4
    )
)
def test_flipped_bits_are_refused_or_read(arrow: Path, changes: list[tuple[float, int]]) -> None:
    content = bytearray(arrow.read_bytes())
    for share, bit in changes:
        content[int(share * len(content))] ^= 1 << bit
    step = read_or_refused(arrow.with_name("flipped.arrows"), content)
    if step is not None:
        assert step.cu_seqlens[-1] == step.tokens <= 8 * len(content)


@fuzzed
@given(
    changes=st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True), st.sampled_from(WORDS), st.sampled_from([2, 4, 8])
        ),
        min_size=1,
        max_size=2,
    )
)
def test_lying_lengths_take_no_memory(
    arrow: Path, pool: Any, changes: list[tuple[float, int, int]]
) -> None:
    """Any word of the stream may claim 2^63 of something."""
    content = bytearray(arrow.read_bytes())
    for share, word, size in changes:
        place = int(share * len(content)) // size * size
        content[place : place + size] = (word % 2 ** (8 * size)).to_bytes(size, "little")
    tracemalloc.start()
    read_or_refused(arrow.with_name("lying.arrows"), content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak + pool.max_memory() < 2**21


@fuzzed
@given(content=st.binary(max_size=300), sound=st.booleans())
def test_arbitrary_bytes(arrow: Path, content: bytes, sound: bool) -> None:
    start = b"\xff\xff\xff\xff" + (len(content)).to_bytes(4, "little") if sound else b""
    assert read_or_refused(arrow.with_name("any.arrows"), start + content) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_memory_stays_near_the_size_of_the_file(
    tmp_path: Path, pool: Any, dtype: type[Any]
) -> None:
    tokens, cut = 2**20, np.arange(0, 2**20 + 1, 2**12)
    columns = {
        "rollout_logprobs": lists(np.zeros(tokens, dtype), cut),
        "trainer_logprobs": lists(np.zeros(tokens, dtype), cut),
        "mask": lists(np.ones(tokens, np.bool_), cut),
    }
    path = write_arrow(tmp_path / "s.arrows", columns, rows_per_batch=16)
    before = pool.max_memory()
    tracemalloc.start()
    read_arrow_step(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    taken = pool.max_memory() - before
    assert peak + taken < 3.5 * os.path.getsize(path)
