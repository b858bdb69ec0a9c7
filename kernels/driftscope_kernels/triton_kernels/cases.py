"""One call of every op, for any number of rows: what is compiled ahead of time and tried on a GPU.

In: Inputs, which hand out tensors. Out: positional and keyword arguments of the op's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.options import TRANSFORMERS_ATTENTION, VLLM, VLLM_ATTENTION, VOCABULARY_TILE
from driftscope_kernels.reference.token_logprob import TokenLogprobs

# A row of 208 = 13·16 elements: several steps per lane, and 8 equal segments of 26. Not a multiple
# of a block of K, so that the masks at its end count.
WIDTH, COLUMNS, HEADS, HEAD_WIDTH = 208, 80, 3, 16
VOCABULARY = VOCABULARY_TILE + 88  # two tiles, the second incomplete
EPS = 1e-5
KV_HEADS, WINDOW, SOFT_CAP = 2, 40, 4.0
# Keys of a decoded sequence go over a tile of 64, pages are smaller than one.
PAGES, PAGE_SIZE, LONGEST = 12, 16, 96


@dataclass(slots=True)
class Inputs:
    """Seeded tensors: the row inputs of a batch of `total` rows, of which `rows` are taken."""

    dtype: torch.dtype
    rows: slice
    total: int
    device: torch.device
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(1))

    def row(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.constant(self.total, *shape, dtype=dtype)[self.rows]

    def constant(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        values = torch.randn(shape, generator=self.generator)
        return values.to(self.device, dtype or self.dtype)

    def ids(self, below: int) -> Tensor:
        drawn = torch.randint(0, below, (self.total,), generator=self.generator)
        return drawn.to(self.device)[self.rows]


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    op: str  # the function of this name in `registered.FUNCTIONS` and in the reference
    arguments: Callable[[Inputs], Arguments]
    # Which of the results have one row per row of the batch; the others are sums over the batch.
    row_results: tuple[int, ...] = (0,)
    has_dot: bool = False  # takes `dot`


def _linear(i: Inputs, **options: Any) -> Arguments:
    return (i.row(WIDTH), i.constant(COLUMNS, WIDTH), i.constant(COLUMNS)), options


def _norm(i: Inputs, inputs: int, **options: Any) -> Arguments:
    rows = tuple(i.row(WIDTH) for _ in range(inputs))
    return (*rows, i.constant(WIDTH), EPS), {"options": VLLM.norm, **options}


def _softmax(i: Inputs) -> Arguments:
    return (i.row(WIDTH), -1), {}


def _softmax_backward(i: Inputs) -> Arguments:
    return (i.row(WIDTH), i.row(WIDTH), -1), {}


def _logsumexp_backward(i: Inputs) -> Arguments:
    return (i.row(), i.row(WIDTH), -1), {}


def _reduction(i: Inputs) -> Arguments:
    return (i.row(WIDTH), (1,)), {}


def _rotary(i: Inputs, *, interleaved: bool) -> Arguments:
    tables = (i.row(HEAD_WIDTH // 2, dtype=torch.float32) for _ in range(2))
    options = VLLM.rotary_interleaved if interleaved else VLLM.rotary
    keywords = {"interleaved": interleaved, "options": options}
    return (i.row(HEADS, HEAD_WIDTH), *tables), keywords


def _token_logprob(i: Inputs) -> Arguments:
    tensors = (i.row(WIDTH), i.constant(VOCABULARY, WIDTH), i.ids(VOCABULARY))
    return tensors, {"temperature": 0.75, "top_k": 3, "options": VLLM.logprob}


def _token_logprob_backward(i: Inputs) -> Arguments:
    (hidden, weight, targets), keywords = _token_logprob(i)
    del keywords["top_k"]
    wide = [i.row(dtype=torch.float32) for _ in range(2)]
    # Any finite sums will do: the gradient is a function of them. The logits reach about 4·√WIDTH.
    largest, total = i.row(dtype=torch.float32) + 60, i.row(dtype=torch.float32).abs() + 1
    nothing = total.new_empty(0)
    result = TokenLogprobs(wide[0], wide[1], nothing, nothing, largest, total, total)
    return (*wide, hidden, weight, targets, result), keywords


def _chunk(i: Inputs, inputs: int) -> Arguments:
    """The rows as a chunk of one sequence of `total` tokens, with the keys up to its end."""
    rows = [i.row(2 * KV_HEADS, HEAD_WIDTH) for _ in range(inputs)]
    keys = [i.constant(i.total, KV_HEADS, HEAD_WIDTH)[: i.rows.stop] for _ in range(2)]
    lengths = {"cu_seqlens_q": [0, len(rows[0])], "seqlens_k": [i.rows.stop]}
    return (*rows, *keys), {**_integers(i, lengths), "scale": 0.25}


def _decode(i: Inputs) -> Arguments:
    """A sequence per row, of any length, its keys in pages that sequences may share."""
    q = i.row(2 * KV_HEADS, HEAD_WIDTH)
    pages = [i.constant(PAGES, PAGE_SIZE, KV_HEADS, HEAD_WIDTH) for _ in range(2)]
    tables = torch.stack([i.ids(PAGES) for _ in range(LONGEST // PAGE_SIZE)], dim=1)
    lengths = {"cu_seqlens_q": range(len(q) + 1), "seqlens_k": (1 + i.ids(LONGEST)).tolist()}
    keywords = {"block_table": tables.int(), "scale": 0.25, "options": TRANSFORMERS_ATTENTION}
    return (q, *pages), {**_integers(i, lengths), **keywords}


def _integers(i: Inputs, lengths: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
    return {
        name: torch.tensor(list(values), dtype=torch.int32, device=i.device)
        for name, values in lengths.items()
    }


def _attention(i: Inputs, inputs: int) -> Arguments:
    tensors, keywords = _chunk(i, inputs)
    more = {"window": WINDOW, "soft_cap": SOFT_CAP, "options": VLLM_ATTENTION}
    return tensors, {**keywords, **more}


CASES: Mapping[str, Case] = {
    case.name: case
    for case in (
        Case("linear", "linear", _linear, has_dot=True),
        Case("linear-tp8", "linear", lambda i: _linear(i, tp_segments=8), has_dot=True),
        Case(
            "linear_weight_grad",
            "linear_weight_grad",
            lambda i: ((i.row(COLUMNS), i.row(WIDTH)), {}),
            (),
            has_dot=True,
        ),
        Case("linear_bias_grad", "linear_bias_grad", lambda i: ((i.row(COLUMNS),), {}), ()),
        Case(
            "bmm",
            "bmm",
            lambda i: ((i.row(5, HEAD_WIDTH), i.row(HEAD_WIDTH, COLUMNS)), {}),
            has_dot=True,
        ),
        Case("rms_norm", "rms_norm", lambda i: _norm(i, 1)),
        Case("rms_norm_backward", "rms_norm_backward", lambda i: _norm(i, 2)),
        Case("add_rms_norm", "add_rms_norm", lambda i: _norm(i, 2), (0, 1)),
        Case("add_rms_norm_backward", "add_rms_norm_backward", lambda i: _norm(i, 4)),
        Case("softmax", "softmax", _softmax),
        Case("softmax_backward", "softmax_backward", _softmax_backward),
        Case("log_softmax", "log_softmax", _softmax),
        Case("log_softmax_backward", "log_softmax_backward", _softmax_backward),
        Case("logsumexp", "logsumexp", _softmax),
        Case("logsumexp_backward", "logsumexp_backward", _logsumexp_backward),
        Case("sum", "sum", _reduction),
        Case("mean", "mean", _reduction),
        Case(
            "swiglu",
            "swiglu",
            lambda i: ((i.row(WIDTH), i.row(WIDTH)), {"options": VLLM.swiglu}),
        ),
        Case(
            "swiglu_backward",
            "swiglu_backward",
            lambda i: ((i.row(WIDTH), i.row(WIDTH), i.row(WIDTH)), {"options": VLLM.swiglu}),
            (0, 1),
        ),
        Case("rotary", "rotary", lambda i: _rotary(i, interleaved=False)),
        Case("rotary-interleaved", "rotary", lambda i: _rotary(i, interleaved=True)),
        Case("token_logprob", "token_logprob", _token_logprob, tuple(range(7)), has_dot=True),
        Case(
            "token_logprob_backward",
            "token_logprob_backward",
            _token_logprob_backward,
            has_dot=True,
        ),
        Case("attention", "attention", lambda i: _attention(i, 1), has_dot=True),
        Case("attention-paged", "attention", _decode, has_dot=True),
        Case(
            "attention_backward",
            "attention_backward",
            lambda i: _attention(i, 2),
            has_dot=True,
        ),
    )
}


def results(function: Callable[..., Any], arguments: Arguments, **more: Any) -> tuple[Tensor, ...]:
    """All results of a call, one or several."""
    positional, keywords = arguments
    found = function(*positional, **keywords, **more)
    return (found,) if isinstance(found, Tensor) else tuple(found)
