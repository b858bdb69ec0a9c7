"""What the ops refuse, and that they say why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from driftscope_kernels import ops
from driftscope_kernels.ops import ArgumentError

ONE = torch.ones(2, 4)
TARGETS = torch.tensor([0, 1])
REFUSED: dict[str, Callable[[], object]] = {
    "linear: dtypes are x torch.float32, weight torch.bfloat16": lambda: ops.linear(
        ONE, ONE.bfloat16()
    ),
    "float32, bfloat16 or float16": lambda: ops.softmax(ONE.double(), -1),
    r"linear: weight has shape \(3, 5\), expected \(3, 4\)": lambda: ops.linear(
        ONE, torch.ones(3, 5)
    ),
    r"linear: bias has shape \(1,\)": lambda: ops.linear(ONE, ONE, torch.ones(1)),
    "linear: weight has 1 dimensions": lambda: ops.linear(ONE, torch.ones(4)),
    "tp_segments is 2, 1 or 8": lambda: ops.linear(ONE, ONE, tp_segments=2),
    r"bmm: b has shape \(2, 5, 3\)": lambda: ops.bmm(torch.ones(1, 3, 5), torch.ones(2, 5, 3)),
    r"bmm: a has shape \(2, 4\)": lambda: ops.bmm(ONE, ONE),
    "eps is -1": lambda: ops.rms_norm(ONE, torch.ones(4), -1),
    r"residual has shape \(1, 4\)": lambda: ops.add_rms_norm(ONE, ONE[:1], torch.ones(4), 0.1),
    "no dimension 2 in a tensor of 2": lambda: ops.log_softmax(ONE, 2),
    r"twice in \(0, -2\)": lambda: ops.mean(ONE, (0, -2)),
    r"swiglu: up has shape \(4,\)": lambda: ops.swiglu(ONE, ONE[0]),
    "rotary: q .* does not fit the tables": lambda: ops.rotary(
        torch.ones(3, 1, 4), torch.ones(3, 1, 4), ONE, ONE
    ),
    "targets run from 0 to 2": lambda: ops.token_logprob(ONE, ONE, torch.tensor([0, 2])),
    "targets run from -100 to 0": lambda: ops.token_logprob(ONE, ONE, torch.tensor([0, -100])),
    "targets are torch.float32": lambda: ops.token_logprob(ONE, ONE, torch.ones(2)),
    "temperature is 0": lambda: ops.token_logprob(ONE, ONE, TARGETS, temperature=0),
    "top_k is 3, of 2": lambda: ops.token_logprob(ONE, ONE, TARGETS, top_k=3),
    "x is on meta": lambda: ops.softmax(ONE.to("meta"), -1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused_with_a_reason(message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        REFUSED[message]()
