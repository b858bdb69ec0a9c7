"""Log-probabilities of tokens from hidden states, by chunks of rows: logits are never whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Rows per chunk, by the dtype of the matrix product. A chunk costs rows × vocabulary × 4 bytes in
#: float32, × 6 in a 16-bit dtype (its logits and their float32 copy). MKL packs the whole weight
#: again at every float32 call, so that few rows are slow (64 rows: 1.16 times the whole batch's
#: time, 128 rows: 0.94, 160 rows: 0.91); oneDNN's 16-bit kernels gain little beyond 96.
FLOAT32_CHUNK_ROWS = 160
HALF_CHUNK_ROWS = 96
#: From here on a row's float32 product does not depend on how many rows are around it. Below, MKL
#: takes other kernels, with another order of summation, for remainders of up to three rows: seen
#: up to 3 rows with one thread, 11 with two, 27 with sixteen on AMD's CPUs; on Intel's up to 15
#: with one thread, and with two, or in bfloat16 with AMX, hundreds, which no chunk size avoids.
INVARIANT_ROWS = 32
#: Chunks are of nearly equal size, so that none is smaller than half of what was asked for.
MIN_CHUNK_ROWS = 2 * INVARIANT_ROWS


def default_chunk_rows(dtype: torch.dtype) -> int:
    return FLOAT32_CHUNK_ROWS if dtype == torch.float32 else HALF_CHUNK_ROWS


def row_chunks(rows: int, chunk_rows: int) -> list[slice]:
    """Cut `rows` into the fewest chunks of at most `chunk_rows`, all of nearly the same size.

    Never a small remainder: it would take another kernel and other bits than the same rows have
    inside a large product. Raises ValueError below MIN_CHUNK_ROWS.
    """
    if chunk_rows < MIN_CHUNK_ROWS:
        raise ValueError(
            f"chunk_rows is {chunk_rows}; give at least {MIN_CHUNK_ROWS}: smaller matrix products "
            "are summed in another order and lose bitwise equality."
        )
    count = -(-rows // chunk_rows)
    edges = [rows * index // count for index in range(count)] + [rows] if count else []
    return [slice(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True)]


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    fp32_head: bool = False,
    chunk_rows: int | None = None,
) -> Tensor:
    """Log-probability of each target token, float32 [tokens], in nats.

    hidden: [tokens, hidden size]; weight: [vocabulary, hidden size]; targets: int64 [tokens];
    bias: [vocabulary]. The product runs in the dtype of `hidden`, under autocast in autocast's,
    with `fp32_head` in float32; everything after it in float32, temperature first (as vLLM's
    processed_logprobs). Extra memory: one chunk of logits, `row_chunks.py` says how many rows.

    Bitwise equal to the plain way where a row's product does not depend on the number of rows
    around it, elsewhere to the plain way chunk by chunk. On AMD's CPUs torch (MKL, oneDNN) has no
    such dependence from 32 rows on, on Intel's MKL has it with two threads and oneDNN with AMX, up
    to hundreds of rows; cuBLAS chooses its kernel by the number of rows. Fewer rows than one chunk
    are a single product, the plain way itself.

    The backward pass recomputes each chunk. A weight gradient is each chunk's product in the
    product's dtype, summed in float32. ValueError: shapes, temperature or chunk_rows.
    """
    _check(hidden, weight, targets, temperature)
    dtype = product_dtype(hidden, fp32_head)
    # Outside the Function, so that autograd carries gradients back through the casts.
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    rows = default_chunk_rows(dtype) if chunk_rows is None else chunk_rows
    chunks = row_chunks(hidden.shape[0], rows)
    result: Tensor = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, temperature, chunks
    )
    return result


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} do not fit; give "
            "[tokens, hidden size] and [vocabulary, hidden size]."
        )
    if targets.shape != hidden.shape[:1] or targets.dtype != torch.int64:
        raise ValueError(
            f"targets are {targets.dtype} {tuple(targets.shape)}; give int64 [{hidden.shape[0]}]."
        )
    if not temperature > 0.0:
        raise ValueError(f"temperature is {temperature}; give a number above 0.")


def product_dtype(hidden: Tensor, fp32_head: bool) -> torch.dtype:
    """The dtype in which the head's matrix product runs."""
    if fp32_head:
        return torch.float32
    if torch.is_autocast_enabled(hidden.device.type):
        return torch.get_autocast_dtype(hidden.device.type)
    return hidden.dtype


@dataclass(frozen=True, slots=True)
class LogitsChunk:
    """Logits of some rows; both tensors are overwritten when the next chunk is asked for."""

    rows: slice
    product: Tensor  # [rows, vocabulary] in the dtype of the matrix product
    logits: Tensor  # [rows, vocabulary] float32, before the temperature; may be `product` itself


def stream_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, chunks: list[slice]
) -> Iterator[LogitsChunk]:
    """Yield the logits chunk by chunk in one reused buffer; inputs share one dtype."""
    # Fresh memory for every chunk would cost page faults, a tenth of the plain way's time.
    longest = max((chunk.stop - chunk.start for chunk in chunks), default=0)
    product = hidden.new_empty(longest, weight.shape[0])
    float32 = product
    if hidden.dtype != torch.float32:
        float32 = torch.empty_like(product, dtype=torch.float32)
    for chunk in chunks:
        size = chunk.stop - chunk.start
        out, logits = product[:size], float32[:size]
        # The same calls as inside F.linear on 2-D input: mm without a bias, addmm with one.
        if bias is None:
            torch.mm(hidden[chunk], weight.t(), out=out)
        else:
            torch.addmm(bias, hidden[chunk], weight.t(), out=out)
        if float32 is not product:
            logits.copy_(out)
        yield LogitsChunk(chunk, out, logits)


def log_softmax_(logits: Tensor, temperature: float) -> Tensor:
    """In place: torch's kernel writes a row only after it has read its maximum and sum."""
    if temperature != 1.0:
        logits.div_(temperature)
    return torch.log_softmax(logits, -1, out=logits)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunks: list[slice],
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.temperature, ctx.chunks = temperature, chunks
        result = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for chunk in stream_logits(hidden, weight, bias, chunks):
                logprobs = log_softmax_(chunk.logits, temperature)
                result[chunk.rows] = logprobs.gather(1, targets[chunk.rows, None])[:, 0]
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        gradients = _Gradients.zeros(hidden, weight, bias, ctx.needs_input_grad)
        with torch.autocast(hidden.device.type, enabled=False):
            for chunk in stream_logits(hidden, weight, bias, ctx.chunks):
                probabilities = log_softmax_(chunk.logits, ctx.temperature).exp_()
                grad_rows = grad[chunk.rows, None]
                grad_logits = probabilities.mul_(-grad_rows)
                grad_logits.scatter_add_(1, targets[chunk.rows, None], grad_rows)
                if ctx.temperature != 1.0:
                    grad_logits.div_(ctx.temperature)
                # Back to the product's dtype, as autograd casts behind `.float()`.
                grad_product = chunk.product.copy_(grad_logits)
                gradients.add(grad_product, hidden[chunk.rows], weight, chunk.rows)
        return (*gradients.rounded(hidden, weight, bias), None, None, None)


@dataclass(frozen=True, slots=True)
class _Gradients:
    """Gradients under construction; None if not requested."""

    hidden: Tensor | None  # [tokens, hidden size], written chunk by chunk
    weight: Tensor | None  # [vocabulary, hidden size], float32 sum over chunks
    bias: Tensor | None  # [vocabulary], float32 sum over chunks

    @staticmethod
    def zeros(
        hidden: Tensor, weight: Tensor, bias: Tensor | None, needed: tuple[bool, ...]
    ) -> _Gradients:
        return _Gradients(
            torch.empty_like(hidden) if needed[0] else None,
            torch.zeros_like(weight, dtype=torch.float32) if needed[1] else None,
            torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needed[2] else None,
        )

    def add(self, grad_product: Tensor, hidden: Tensor, weight: Tensor, rows: slice) -> None:
        if self.hidden is not None:
            torch.mm(grad_product, weight, out=self.hidden[rows])
        if self.weight is not None:
            if grad_product.dtype == torch.float32:
                self.weight.addmm_(grad_product.t(), hidden)
            else:
                self.weight.add_(grad_product.t() @ hidden)
        if self.bias is not None:
            self.bias.add_(grad_product.sum(0, dtype=torch.float32))

    def rounded(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        return (
            self.hidden,
            None if self.weight is None else self.weight.to(weight.dtype),
            None if self.bias is None or bias is None else self.bias.to(bias.dtype),
        )
