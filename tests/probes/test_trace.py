import numpy as np
import pytest

from driftscope_probes.errors import TraceError
from driftscope_probes.trace import Side, Trace, TraceMeta, both_sides


def trace(ids: list[int], lengths: list[int], side: Side = "rollout", **changes: object) -> Trace:
    fields: dict[str, object] = {
        "token_ids": np.array(ids, np.int32),
        "logprobs": np.full(len(ids), -1.0, np.float32),
        "cu_seqlens": np.cumsum([0, *lengths]).astype(np.int64),
        "mask": np.ones(len(ids), np.bool_),
        "meta": TraceMeta(side, "m", "bf16", "vllm", "1"),
    }
    return Trace(**(fields | changes))  # type: ignore[arg-type]


def test_a_sequence_is_its_slice() -> None:
    whole = trace([1, 2, 3, 4, 5], [2, 3])
    assert whole.sequences == 2
    assert whole.token_ids[whole.sequence(1)].tolist() == [3, 4, 5]


def test_arrays_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        trace([1], [1]).logprobs[0] = 0.0


@pytest.mark.parametrize(
    "cu_seqlens", [[0, 2], [1, 3], [0, 2, 1, 3], [0], [[0, 3]], [0, 2**63 - 1, -2, 3]]
)
def test_cu_seqlens_that_do_not_fit_are_refused(cu_seqlens: list[int]) -> None:
    with pytest.raises(TraceError, match="cu_seqlens"):
        trace([1, 2, 3], [3], cu_seqlens=np.array(cu_seqlens, np.int64))


def test_a_missing_logprob_is_refused() -> None:
    with pytest.raises(TraceError, match="one value per token"):
        trace([1, 2], [2], logprobs=np.zeros(1, np.float32))


def test_a_pair_names_the_first_token_that_differs() -> None:
    with pytest.raises(TraceError, match="first at token 1: 2 against 7"):
        both_sides(trace([1, 2], [2]), trace([1, 7], [2], "trainer"))


def test_a_pair_refuses_other_sequences_and_masks() -> None:
    with pytest.raises(TraceError, match="different sequences"):
        both_sides(trace([1, 2], [2]), trace([1, 2], [1, 1], "trainer"))
    with pytest.raises(TraceError, match="mask"):
        both_sides(trace([1, 2], [2]), trace([1, 2], [2], "trainer", mask=np.array([True, False])))
