"""Many batches: read like one, in a time that grows with their number."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftscope_probes.push import arrow_step
from driftscope_probes.push.arrow_step import read_arrow_step, tensors_of_batches
from driftscope_probes.push.rules import MAX_ARROW_BATCHES, PushError

SCHEMA = pa.schema(
    [(name, pa.list_(pa.float32())) for name in ("rollout_logprobs", "trainer_logprobs")]
)
CHOSEN = {name: name for name in SCHEMA.names}


def batch(lengths: list[int], start: float = 0.0) -> pa.RecordBatch:
    rows = [[start - place for place in range(length)] for length in lengths]
    return pa.record_batch([pa.array(rows, pa.list_(pa.float32()))] * 2, schema=SCHEMA)


def stream(batches: list[pa.RecordBatch]) -> bytes:
    into = BytesIO()
    with pa.ipc.new_stream(into, SCHEMA) as writer:
        for one in batches:
            writer.write_batch(one)
    return into.getvalue()


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=12))
def test_batches_are_read_like_one(tmp_path: Path, parts: list[list[int]]) -> None:
    rows = [length for own in parts for length in own]
    several, one = tmp_path / "several", tmp_path / "one"
    several.write_bytes(stream([batch(own) for own in parts]))
    one.write_bytes(stream([batch(rows)]))
    if not rows:
        with pytest.raises(PushError, match="no row"):
            read_arrow_step(several)
        return
    read, expected = read_arrow_step(several), read_arrow_step(one)
    for name in ("rollout", "trainer", "cu_seqlens"):
        assert np.array_equal(getattr(read, name), getattr(expected, name))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=8),
    st.integers(1, 12),
    st.integers(1, 20),
)
def test_limits_are_of_all_batches_together(
    parts: list[list[int]], most_sequences: int, most_tokens: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow_step, "MAX_SEQUENCES", most_sequences)
        patch.setattr(arrow_step, "MAX_TOKENS", most_tokens)
        rows = [length for own in parts for length in own]
        fits = len(rows) <= most_sequences and sum(rows) <= most_tokens
        try:
            tensors_of_batches(CHOSEN, [batch(own) for own in parts])
            refused = ""
        except PushError as error:
            refused = error.message
    assert ("accepted are" in refused) is not fits


def test_each_batch_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: the sums of all batches before, anew for each, were quadratic."""
    looked = 0

    class Counted(np.ndarray):
        def sum(self, *args: object, **options: object) -> object:  # type: ignore[override]
            nonlocal looked
            looked += 1
            return np.asarray(self).sum()

    lengths = arrow_step._lengths
    monkeypatch.setattr(arrow_step, "_lengths", lambda *given: lengths(*given).view(Counted))
    tensors_of_batches(CHOSEN, [batch([2]) for _ in range(300)])
    assert looked == 300


def test_too_many_batches(tmp_path: Path) -> None:
    path = tmp_path / "many"
    empty = batch([])
    path.write_bytes(stream([batch([1]), *[empty] * MAX_ARROW_BATCHES]))
    with pytest.raises(PushError, match="more than 4,096 batches"):
        read_arrow_step(path)
