"""New weights in a running engine are the weights it computes with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

Result = dict[str, Any]


def assert_reloaded(results: Sequence[Result], follows: bool) -> None:
    """Whether a reloaded engine computes what one with the new weights from the start does."""
    for reloaded, fresh in zip(results[::2], results[1::2], strict=True):
        assert reloaded["among"]["0"]["logprobs"] != fresh["among"]["0"]["logprobs"]
        assert (reloaded["reloaded"] == fresh["among"]["0"]) is follows


def test_reloaded_weights_are_in_use(
    reloads: list[Result], run_engines: Callable[..., list[Result]]
) -> None:
    found = run_engines(reloads, keep=True)
    assert len(found) == 4
    assert_reloaded(found, follows=True)


@pytest.mark.avx512
def test_stock_vllm_goes_on_with_old_weights(of_stock: list[Result]) -> None:
    """The control: stock vLLM 0.32 on CPU goes on with the old lm_head of tied embeddings,

    and copies experts unpacked over what it reads as packed.
    """
    assert_reloaded(of_stock[:4], follows=False)
