"""A server's JSON: null, vLLM's floor, and what is not a number at all."""

from __future__ import annotations

import math

import pytest

from driftscope_probes.engines.server_logprobs import Gap, gap_sentences, read_logprobs
from driftscope_probes.errors import EngineError


def test_numbers_keep_their_places() -> None:
    sent = read_logprobs([-1.5, None, -9999.0, 0, -9998.5, math.inf], "prompt 2")
    assert sent.values[0] == -1.5 and math.isnan(sent.values[1])
    assert sent.values[2:] == (-math.inf, 0.0, -9998.5, math.inf)
    assert sent.gaps == (
        Gap("null", "prompt 2", 1),
        Gap("floor", "prompt 2", 2),
        Gap("not finite", "prompt 2", 5),
    )


@pytest.mark.parametrize("value", ["-1.0", True, [], {}])
def test_what_is_no_number_is_named_with_its_place(value: object) -> None:
    with pytest.raises(EngineError, match=r"token 1 of prompt 7"):
        read_logprobs([-1.0, value], "prompt 7")


def test_each_kind_is_said_once_with_its_first_places() -> None:
    gaps = [Gap("null", f"prompt {index}", 3) for index in range(5)]
    (many,) = gap_sentences(gaps)
    assert "5 times: prompt 0, token 3; prompt 1, token 3; prompt 2, token 3; and 2 more" in many
    both = gap_sentences([*gaps[:1], Gap("floor", "prompt 9", 0)])
    assert [("null" in one, "-9999.0" in one) for one in both] == [(True, False), (False, True)]
    assert "once: prompt 9, token 0. It was read as -inf" in both[1]
    assert gap_sentences([]) == []
