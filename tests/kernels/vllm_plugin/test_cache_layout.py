"""What vLLM writes into a page and what our attention reads there are the same numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.reference.attention_sequences import vllm_pages
from driftscope_kernels.vllm_plugin.rounding import KernelChoiceError

pytest.importorskip("vllm")

from driftscope_kernels.vllm_plugin import attention

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def _checked_anew() -> None:
    attention.check.cache_clear()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("page_size", "head_size"), [(16, 64), (128, 64), (32, 128), (128, 80)])
@pytest.mark.parametrize("isa", sorted(attention.READABLE))
def test_what_is_readable_is_read(
    isa: str, dtype: torch.dtype, page_size: int, head_size: int
) -> None:
    attention.check(isa, dtype, page_size, head_size)


@pytest.mark.skipif(not torch.cpu._is_amx_tile_supported(), reason="needs AMX")
def test_tiles_of_amx_are_refused() -> None:
    with pytest.raises(KernelChoiceError, match="keys for 'amx'"):
        attention.check("amx", torch.bfloat16, 128, 64)


def keys_as_values(pages: Tensor) -> tuple[Tensor, Tensor]:
    """As if a page held its keys token after token."""
    keys, values = pages.transpose(1, 2).chunk(2, dim=3)
    return keys, values


def no_values(pages: Tensor) -> tuple[Tensor, Tensor]:
    keys, values = vllm_pages(pages)
    return keys, torch.zeros_like(values)


def values_in_pairs(pages: Tensor) -> tuple[Tensor, Tensor]:
    """As if two tokens next to each other were exchanged."""
    keys, values = vllm_pages(pages)
    return keys, values[:, torch.arange(values.shape[1]) ^ 1]


def values_reversed(pages: Tensor) -> tuple[Tensor, Tensor]:
    """As if the elements of a head lay in another order."""
    keys, values = vllm_pages(pages)
    return keys, values.flip(-1)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (keys_as_values, "keys"),
        (no_values, "values"),
        (values_in_pairs, "values"),
        (values_reversed, "values"),
    ],
)
def test_another_layout_is_named(fault: Any, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "vllm_pages", fault)
    with pytest.raises(KernelChoiceError, match=f"{named} for 'vec'.*does not read"):
        attention.check("vec", torch.bfloat16, 128, 64)
