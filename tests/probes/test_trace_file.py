from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from driftscope_probes.errors import TraceError
from driftscope_probes.trace import Trace, TraceMeta
from driftscope_probes.trace_file import read_trace, write_trace


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_what_is_written_is_read_bit_for_bit(tmp_path: Path, lengths: list[int], seed: int) -> None:
    tokens = sum(lengths)
    rng = np.random.default_rng(seed)
    logprobs = rng.integers(0, 2**32, tokens, np.uint32).view(np.float32)  # any bits, NaN too
    trace = Trace(
        token_ids=rng.integers(0, 50_000, tokens).astype(np.int32),
        logprobs=logprobs,
        cu_seqlens=np.cumsum([0, *lengths]).astype(np.int64),
        mask=rng.integers(0, 2, tokens).astype(np.bool_),
        meta=TraceMeta("trainer", "m", "autocast-bf16", "trainer", "2.1", {"seed": 3, "x": None}),
    )
    file = tmp_path / "t.safetensors"
    write_trace(trace, file)
    again = read_trace(file)
    assert again.logprobs.tobytes() == logprobs.tobytes()
    assert again.token_ids.tolist() == trace.token_ids.tolist()
    assert again.mask.tolist() == trace.mask.tolist()
    assert again.meta == trace.meta
    assert not list(tmp_path.glob("*.partial"))


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    for content in (b"", b"\x08\0\0\0\0\0\0\0{}", b"not a file at all"):
        file.write_bytes(content)
        with pytest.raises(TraceError, match="driftscope wrote"):
            read_trace(file)
    with pytest.raises(TraceError, match="driftscope wrote"):
        read_trace(tmp_path / "absent")


def test_tensors_without_meta_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    one = np.zeros(1, np.float32)
    names = ("token_ids", "logprobs", "cu_seqlens", "mask")
    save_file({name: one for name in names}, file)
    with pytest.raises(TraceError, match="no trace meta"):
        read_trace(file)
