"""Against the plain way on the whole matrix: the same bits, and autograd's gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from driftscope_probes.trainer.token_logprobs import (
    INVARIANT_ROWS,
    default_chunk_rows,
    row_chunks,
    token_logprobs,
)

TOKENS = (0, 1, 2, 3, 5, 11, 63, 65, 97, 127, 129, 193, 257, 1000, 1024)
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
#: fp16 products are emulated on most CPUs: fewer rows, all regimes of the chunking kept.
FEWER_TOKENS = (0, 1, 2, 3, 5, 11, 63, 65, 97, 129, 193)

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def inputs(tokens: int, dtype: torch.dtype, hidden: int = 64, vocabulary: int = 503) -> Inputs:
    generator = torch.Generator().manual_seed(tokens)
    return (
        torch.randn(tokens, hidden, generator=generator).to(dtype),
        torch.randn(vocabulary, hidden, generator=generator).mul(0.2).to(dtype),
        torch.randint(vocabulary, (tokens,), generator=generator),
        torch.randn(vocabulary, generator=generator).to(dtype),
    )


def plain(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    logits = F.linear(hidden, weight, bias).float() / temperature
    return torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    torch.set_num_threads(count)  # the package's fixture puts it back
    return count


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_bitwise_equal_to_the_plain_way(
    dtype: torch.dtype, with_bias: bool, temperature: float
) -> None:
    unequal = []
    for tokens in FEWER_TOKENS if dtype == torch.float16 else TOKENS:
        hidden, weight, targets, bias = inputs(tokens, dtype)
        used = bias if with_bias else None
        ours = token_logprobs(hidden, weight, targets, bias=used, temperature=temperature)
        assert ours.dtype == torch.float32
        if not torch.equal(ours, plain(hidden, weight, targets, used, temperature)):
            unequal.append(tokens)
    assert not unequal


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("hidden", "vocabulary"), [(576, 4096), (97, 1001), (896, 2000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bitwise_equal_in_other_shapes(dtype: torch.dtype, hidden: int, vocabulary: int) -> None:
    """Where torch's product of a row depends on the rows beside it, chunk by chunk.

    With two threads MKL's float32 product does on Intel's CPUs, and oneDNN's bfloat16 with AMX.
    """
    for tokens in (5, 129, 193, 300):
        states, weight, targets, _ = inputs(tokens, dtype, hidden, vocabulary)
        ours = token_logprobs(states, weight, targets)
        chunks = row_chunks(tokens, default_chunk_rows(dtype))
        by_chunk = [plain(states[rows], weight, targets[rows]) for rows in chunks]
        assert torch.equal(ours, torch.cat(by_chunk))
        products = torch.cat([F.linear(states[rows], weight) for rows in chunks])
        if torch.equal(products, F.linear(states, weight)):
            assert torch.equal(ours, plain(states, weight, targets))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [1, 5, 65, 193])
def test_bitwise_equal_under_autocast(dtype: torch.dtype, tokens: int) -> None:
    hidden, weight, targets, _ = inputs(tokens, torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        ours = token_logprobs(hidden, weight, targets)
        assert torch.equal(ours, plain(hidden, weight, targets))
        float32_head = token_logprobs(hidden, weight, targets, fp32_head=True)
    assert torch.equal(float32_head, plain(hidden, weight, targets))
    assert not torch.equal(float32_head, ours)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_float32_head_is_the_float32_product_of_the_rounded_values(dtype: torch.dtype) -> None:
    hidden, weight, targets, _ = inputs(129, dtype)
    ours = token_logprobs(hidden, weight, targets, fp32_head=True)
    assert torch.equal(ours, plain(hidden.float(), weight.float(), targets))


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_do_not_depend_on_the_rows_around_them(dtype: torch.dtype) -> None:
    hidden, weight, targets, _ = inputs(300, dtype)
    whole = token_logprobs(hidden, weight, targets)
    part = slice(100, 100 + INVARIANT_ROWS)
    assert torch.equal(token_logprobs(hidden[part], weight, targets[part]), whole[part])


@pytest.mark.skipif("Math Kernel" not in torch.__config__.show(), reason="a property of MKL")
def test_small_chunks_would_be_noticed() -> None:
    """The planted fault: single rows have other bits, so that the checks above bite."""
    hidden, weight, targets, _ = inputs(129, torch.float32)
    chunks = [
        plain(h, weight, t)
        for h, t in zip(torch.split(hidden, 1), torch.split(targets, 1), strict=True)
    ]
    assert not torch.equal(torch.cat(chunks), plain(hidden, weight, targets))


class LargestResult(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("dtype", FLOATS)
def test_no_tensor_is_larger_than_a_chunk_of_logits(dtype: torch.dtype) -> None:
    tokens, vocabulary = 400, 2003
    hidden, weight, targets, _ = inputs(tokens, dtype, 16, vocabulary)
    seen: dict[Callable[..., Tensor], int] = {}
    for way in (token_logprobs, plain):
        with LargestResult() as largest:
            way(hidden, weight, targets)
        seen[way] = largest.elements
    assert seen[token_logprobs] <= default_chunk_rows(dtype) * vocabulary
    assert seen[plain] == tokens * vocabulary  # the instrument sees what it should


#: Relative to the largest entry. The plain way rounds a weight gradient once, ours once per chunk
#: and once at the end: a few units in the last place of the dtype (2^-8, 2^-11).
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_are_those_of_autograd(dtype: torch.dtype, with_bias: bool) -> None:
    hidden, weight, targets, bias = inputs(193, dtype)
    leaves = [hidden, weight, bias] if with_bias else [hidden, weight]
    for leaf in leaves:
        leaf.requires_grad_()
    used = bias if with_bias else None
    incoming = torch.randn(193, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad(
        token_logprobs(hidden, weight, targets, bias=used, temperature=0.7), leaves, incoming
    )
    theirs = torch.autograd.grad(plain(hidden, weight, targets, used, 0.7), leaves, incoming)
    for got, expected in zip(ours, theirs, strict=True):
        assert got.dtype == expected.dtype
        scale = expected.float().abs().max()
        assert (got.float() - expected.float()).abs().max() <= TOLERANCE[dtype] * scale


def test_autocast_gradients_arrive_at_the_float32_weights() -> None:
    hidden, weight, targets, _ = inputs(129, torch.float32)
    hidden.requires_grad_()
    weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = token_logprobs(hidden, weight, targets), plain(hidden, weight, targets)
    for got, expected in zip(
        torch.autograd.grad(ours.sum(), [hidden, weight]),
        torch.autograd.grad(theirs.sum(), [hidden, weight]),
        strict=True,
    ):
        assert got.dtype == torch.float32
        assert (got - expected).abs().max() <= TOLERANCE[torch.bfloat16] * expected.abs().max()


def test_a_frozen_weight_gets_no_gradient() -> None:
    hidden, weight, targets, _ = inputs(70, torch.float32)
    hidden.requires_grad_()
    token_logprobs(hidden, weight, targets).sum().backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert weight.grad is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(4, 63)}, "do not fit"),
        ({"targets": torch.zeros(5, dtype=torch.int64)}, "give int64"),
        ({"targets": torch.zeros(4)}, "give int64"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": float("nan")}, "above 0"),
        ({"chunk_rows": 3}, "chunk_rows is 3"),
    ],
)
def test_wrong_input_is_refused(change: dict[str, Any], message: str) -> None:
    hidden, weight, targets, _ = inputs(4, torch.float32)
    given = {"hidden": hidden, "weight": weight, "targets": targets, **change}
    with pytest.raises(ValueError, match=message):
        token_logprobs(**given)
