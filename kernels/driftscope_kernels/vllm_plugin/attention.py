"""vLLM's CPU attention through ours, and how its key-value cache is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadataBuilder,
)

from driftscope_kernels.cpu.attention import MOST_HEAD_SIZE, attention
from driftscope_kernels.reference.attention_sequences import vllm_pages
from driftscope_kernels.vllm_plugin import rounding
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


def route() -> None:
    from vllm.v1.attention.backends import registry

    from driftscope_kernels.vllm_plugin import patches

    backend = registry.AttentionBackendEnum.CPU_ATTN
    name = f"{InvariantAttentionBackend.__module__}.{InvariantAttentionBackend.__qualname__}"
    patches.replace(registry, "_ATTN_OVERRIDES", {**registry._ATTN_OVERRIDES, backend: name})


@dataclass(frozen=True, slots=True)
class InvariantMetadata:
    """One step's batch, as our attention takes it."""

    num_actual_tokens: int
    query_starts: Tensor  # [sequences + 1] int64
    seq_lens: Tensor  # [sequences] int64
    block_table: Tensor  # [sequences, pages] int32
    slot_mapping: Tensor
    causal: bool


class InvariantAttentionBackend(CPUAttentionBackend):  # type: ignore[misc]
    @classmethod
    def supports_non_causal(cls) -> bool:
        return False

    @classmethod
    def supports_batch_invariance(cls) -> bool:
        return True

    @classmethod
    def supports_attn_type(cls, attn_type: str) -> bool:
        return bool(attn_type == AttentionType.DECODER)

    @staticmethod
    def get_impl_cls() -> type[InvariantAttention]:
        return InvariantAttention

    @staticmethod
    def get_builder_cls() -> type[InvariantMetadataBuilder]:
        return InvariantMetadataBuilder


class InvariantMetadataBuilder(CPUAttentionMetadataBuilder):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.isa: str
        super().__init__(*args, **kwargs)
        # vLLM writes the cache as the instructions that it would read it with want it: on a CPU
        # with AMX, bfloat16 keys in tiles, which `vllm_pages` does not describe.
        if self.isa not in READABLE:
            self.isa = VECTOR
            self._set_isa_to_layers(self.layer_names)
        check(self.isa, self.dtype, self.block_size, self.head_dim)

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False
    ) -> InvariantMetadata:
        common = common_attn_metadata
        if isinstance(common.causal, Tensor) or not common.causal:
            raise KernelChoiceError("attention that is not causal: ours is causal only")
        return InvariantMetadata(
            num_actual_tokens=common.num_actual_tokens,
            query_starts=common.query_start_loc.long(),
            seq_lens=common.seq_lens.long(),
            block_table=common.block_table_tensor,
            slot_mapping=common.slot_mapping,
            causal=True,
        )


class InvariantAttention(CPUAttentionBackendImpl):  # type: ignore[misc]
    """`do_kv_cache_update` stays vLLM's: it copies, and changes no number."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        faults = [
            name
            for name, there in (
                ("ALiBi", self.alibi_slopes is not None),
                ("sinks", self.sinks is not None),
                ("an 8-bit cache", self.is_fp8_kv_cache),
                (f"{self.attn_type} layers", self.attn_type != AttentionType.DECODER),
                (f"heads of {self.head_size}", self.head_size > MOST_HEAD_SIZE),
            )
            if there
        ]
        if faults:
            raise KernelChoiceError(f"our attention for vLLM does not have {', '.join(faults)}")
        # vLLM counts the tokens seen as ours does, and has -1 and 0 for none.
        self._window = None if self.sliding_window < 0 else int(self.sliding_window)
        self._soft_cap = float(self.logits_soft_cap) or None

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: InvariantMetadata | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """As CPUAttentionBackendImpl.forward; kv_cache [pages, KH, page size, 2·D]."""
        assert output_scale is None and output_block_scale is None
        if attn_metadata is None:  # vLLM warms up
            return output
        count = attn_metadata.num_actual_tokens
        keys, values = vllm_pages(kv_cache)
        attention(
            query[:count],
            keys,
            values,
            cu_seqlens_q=attn_metadata.query_starts,
            seqlens_k=attn_metadata.seq_lens,
            block_table=attn_metadata.block_table,
            scale=self.scale,
            window=self._window,
            soft_cap=self._soft_cap,
            out=output[:count],
            options=rounding.in_use().attention,
        )
        return output
