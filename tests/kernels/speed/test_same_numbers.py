"""What is timed against each other computes the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from driftscope_kernels.cpu.linear import linear, pack_weight
from driftscope_kernels.speed import rows, token_logprob
from driftscope_kernels.speed.linear import targets, vllm_linear
from driftscope_kernels.speed.row import OURS, TORCH

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
#: A few units in the last place of a sum that both round, relative to the largest element.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def close(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype) -> bool:
    assert ours.shape == theirs.shape
    scale = theirs.double().abs().max()
    return bool((ours.double() - theirs.double()).abs().max() <= TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows(dtype: torch.dtype) -> None:
    x, other = torch.randn(3, 576).to(dtype), torch.randn(3, 576).to(dtype)
    ways = rows.ways_of(x, other, torch.randn(576).to(dtype))
    for op, (ours, theirs) in ways.items():
        assert close(ours(), theirs(), dtype), op
    assert rows.ONE_NUMBER < set(ways) and set(ways) > rows.WITHOUT_TARGET


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_linear(dtype: torch.dtype) -> None:
    weight, x = torch.randn(64, 96).to(dtype), torch.randn(5, 96).to(dtype)
    theirs = F.linear(x, weight)
    assert close(linear(x, weight), theirs, dtype)
    assert close(linear(x, weight, weight_pack=pack_weight(weight)), theirs, dtype)
    onednn = vllm_linear(weight)  # None where this CPU has none
    assert onednn is None or close(onednn(x), theirs, dtype)


def test_vllm_has_no_fp16_linear_here() -> None:
    assert vllm_linear(torch.randn(4, 4).half()) is None


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_token_logprob(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_logprob, "VOCABULARY", 512)
    ways = token_logprob.ways(dtype, 3)
    ours, plain = ways[OURS]().reshape(3, 1), ways[TORCH]()
    # The plain way rounds the logits to the dtype before it sums over them.
    assert close(ours, plain, dtype)


@pytest.mark.parametrize(
    ("dtype", "m", "expected"),
    [
        (torch.float32, 1, (1.5, 1.2)),
        (torch.bfloat16, 8, (1.5, 1.2)),
        (torch.float32, 32, (1.1, 0.95)),
        (torch.float16, 1, (5.0, 0.0)),
        (torch.float16, 512, (5.0, 0.0)),
    ],
)
def test_targets_of_linear(dtype: torch.dtype, m: int, expected: tuple[float, float]) -> None:
    assert targets(dtype, m) == expected
