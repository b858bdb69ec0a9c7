"""How vLLM's CPU attention lays keys and values in a page, and whether ours reads them there.

In: the instruction set that vLLM writes the cache for, dtype, tokens per page, head size. Out:
KernelChoiceError, or nothing.
"""

from __future__ import annotations

from functools import cache

import torch

from driftscope_kernels.reference.attention_sequences import vllm_pages
from driftscope_kernels.vllm_plugin.rounding import KernelChoiceError

#: The layout of x86 without AMX, which vLLM can write on every x86 CPU.
VECTOR = "vec"
#: vLLM's names of what writes that layout (0.32: cpu_attn._get_attn_isa).
READABLE = frozenset({VECTOR, "vec16"})
#: Two pages and part of a third, two heads: whole pages, an unfinished one, and heads apart.
PAGES, HEADS = 3, 2
#: Whole numbers below it are exact in bfloat16, so that a lost or moved element is seen.
DISTINCT = 256


@cache
def check(isa: str, dtype: torch.dtype, page_size: int, head_size: int) -> None:
    """Write known keys and values as vLLM does and read them as we do; raises KernelChoiceError.

    A layout that changed would give plausible numbers that are wrong, with no error at all.
    """
    from vllm import _custom_ops as ops

    count = PAGES * page_size - page_size // 2
    # Drawn, not counted: no layout may move an element to where an equal one is expected.
    generator = torch.Generator().manual_seed(0)
    shape = (2, count, HEADS, head_size)
    key, value = torch.randint(DISTINCT, shape, generator=generator).to(dtype)
    pages = torch.zeros(PAGES, HEADS, page_size, 2 * head_size, dtype=dtype)
    halves = pages.view(PAGES, HEADS, 2 * page_size, head_size).chunk(2, dim=2)
    slots = torch.arange(count)
    ops.cpu_attn_reshape_and_cache(key, value, *halves, slots, isa)
    for name, written, read in zip(
        ("keys", "values"), (key, value), vllm_pages(pages), strict=True
    ):
        if not torch.equal(read.flatten(0, 1)[:count], written):
            raise KernelChoiceError(
                f"vLLM writes {name} for {isa!r} ({dtype}, pages of {page_size} tokens, heads of "
                f"{head_size}) in a layout that our attention does not read"
            )
