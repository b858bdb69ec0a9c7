import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.trainer.token_logprobs import (
    INVARIANT_ROWS,
    MIN_CHUNK_ROWS,
    default_chunk_rows,
    row_chunks,
)


@given(rows=st.integers(0, 5000), chunk_rows=st.integers(MIN_CHUNK_ROWS, 300))
def test_chunks_cover_the_rows_in_order_and_none_is_small(rows: int, chunk_rows: int) -> None:
    chunks = row_chunks(rows, chunk_rows)
    covered = [row for chunk in chunks for row in range(chunk.start, chunk.stop)]
    assert covered == list(range(rows))
    sizes = [chunk.stop - chunk.start for chunk in chunks]
    assert all(size <= chunk_rows for size in sizes)
    if len(sizes) > 1:
        assert min(sizes) >= INVARIANT_ROWS
        assert max(sizes) - min(sizes) <= 1


def test_chunks_too_small_for_equal_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=f"at least {MIN_CHUNK_ROWS}"):
        row_chunks(100, MIN_CHUNK_ROWS - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_default_sizes_are_accepted(dtype: torch.dtype) -> None:
    assert row_chunks(1024, default_chunk_rows(dtype))
