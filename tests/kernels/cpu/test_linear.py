"""The fast linear layer: the reference's bits, on every path, wherever a row is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels.cpu.backend import BackendError
from driftscope_kernels.cpu.linear import linear, pack_weight
from driftscope_kernels.options import TP_SEGMENTS
from driftscope_kernels.reference.linear import linear as reference

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Bits = Callable[[Tensor], Tensor]
Wide = Callable[..., Tensor]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same matrix with other strides."""
    if layout == "columns":
        return x.t().contiguous().t()
    if layout == "spaced":
        return x.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3]
    if layout == "offset":  # an odd element offset: no alignment to speak of
        return torch.cat([x.new_zeros(1), x.reshape(-1)])[1:].view(x.shape)
    return x


LAYOUTS = ("rows", "columns", "spaced", "offset")


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(0, 27),
    n=st.integers(0, 70),
    k=st.sampled_from([0, 1, 2, 3, 15, 16, 17, 31, 33, 64, 255, 256, 257, 530]),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(DTYPES),
    out_dtype=st.sampled_from([None, *DTYPES]),
    kind=st.sampled_from(["wide", "tiny", "special"]),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    with_bias=st.booleans(),
    with_initial=st.booleans(),
    packed=st.booleans(),
)
def test_linear_has_the_bits_of_the_reference(
    isa: str,
    bits: Bits,
    wide: Wide,
    m: int,
    n: int,
    k: int,
    seed: int,
    dtype: torch.dtype,
    out_dtype: torch.dtype | None,
    kind: str,
    layouts: tuple[str, str],
    with_bias: bool,
    with_initial: bool,
    packed: bool,
) -> None:
    x = laid_out(wide((m, k), dtype, seed, kind), layouts[0])
    weight = laid_out(wide((n, k), dtype, seed + 1, kind), layouts[1])
    bias = wide((n,), dtype, seed + 2, kind) if with_bias else None
    initial = wide((m, n), torch.float32, seed + 3, kind) if with_initial else None
    pack = pack_weight(weight, isa=isa) if packed else None
    got = linear(x, weight, bias, weight_pack=pack, out_dtype=out_dtype, initial=initial, isa=isa)
    expected = reference(x, weight, bias, out_dtype=out_dtype, initial=initial)
    assert torch.equal(bits(got), bits(expected))


@settings(max_examples=10, deadline=None)
@given(
    m=st.integers(1, 14),
    n=st.integers(1, 40),
    segment=st.integers(0, 37),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(["wide", "tiny", "special"]),
    packed=st.booleans(),
)
def test_segments_of_k_have_the_bits_of_the_reference(
    isa: str,
    bits: Bits,
    wide: Wide,
    m: int,
    n: int,
    segment: int,
    seed: int,
    dtype: torch.dtype,
    kind: str,
    packed: bool,
) -> None:
    k = segment * TP_SEGMENTS
    x, weight = wide((m, k), dtype, seed, kind), wide((n, k), dtype, seed + 1, kind)
    bias = wide((n,), dtype, seed + 2, kind)
    pack = pack_weight(weight, tp_segments=TP_SEGMENTS, isa=isa) if packed else None
    got = linear(x, weight, bias, tp_segments=TP_SEGMENTS, weight_pack=pack, isa=isa)
    assert torch.equal(bits(got), bits(reference(x, weight, bias, tp_segments=TP_SEGMENTS)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_row_has_the_same_bits_alone_and_anywhere_in_a_batch(
    isa: str, bits: Bits, wide: Wide, dtype: torch.dtype, packed: bool
) -> None:
    x, weight = wide((67, 300), dtype, 1), wide((150, 300), dtype, 2)
    pack = pack_weight(weight, isa=isa) if packed else None
    alone = torch.cat([linear(row[None], weight, weight_pack=pack, isa=isa) for row in x])
    for m in (*range(1, 18), 31, 32, 33, 67):
        for first in (0, 67 - m):
            got = linear(x[first : first + m], weight, weight_pack=pack, isa=isa)
            assert torch.equal(bits(got), bits(alone[first : first + m])), (m, first)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n"), [(1, 1500), (40, 1500), (700, 40), (1000, 32)])
def test_threads_change_no_bit(bits: Bits, wide: Wide, dtype: torch.dtype, m: int, n: int) -> None:
    x, weight = wide((m, 320), dtype, 1), wide((n, 320), dtype, 2)
    for pack in (None, pack_weight(weight)):
        got = []
        for count in (1, 2, 3):
            with threads(count):
                got.append(bits(linear(x, weight, weight_pack=pack)))
        assert torch.equal(got[0], got[1])
        assert torch.equal(got[0], got[2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_processor_s_mode_changes_no_bit(bits: Bits, wide: Wide, dtype: torch.dtype) -> None:
    x, weight = wide((5, 64), dtype, 1, "tiny"), wide((40, 64), dtype, 2, "tiny")
    expected = linear(x, weight, out_dtype=torch.float32)
    torch.set_flush_denormal(True)
    try:
        got = linear(x, weight, out_dtype=torch.float32)
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(bits(got), bits(expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_against_float64_is_within_the_bound_of_a_chain(
    isa: str, wide: Wide, dtype: torch.dtype
) -> None:
    """|error| ≤ K·2^-24·Σ|x·w| before rounding (Higham, Accuracy and Stability, §3.1)."""
    k = 512
    x, weight = wide((20, k), dtype, 1), wide((50, k), dtype, 2)
    exact = x.double() @ weight.double().t()
    bound = k * 2.0**-24 / (1 - k * 2.0**-24) * (x.double().abs() @ weight.double().abs().t())
    got = linear(x, weight, out_dtype=torch.float32, isa=isa).double()
    assert bool(((got - exact).abs() <= bound).all())


def test_more_rows_than_a_pass_have_the_bits_of_few(bits: Bits, wide: Wide) -> None:
    x, weight = wide((1100, 33), torch.bfloat16, 1), wide((40, 33), torch.bfloat16, 2)
    assert torch.equal(bits(linear(x, weight)[-3:]), bits(linear(x[-3:], weight)))


def test_leading_dimensions_are_kept(wide: Wide) -> None:
    x, weight = wide((2, 3, 5, 16), torch.float32, 1), wide((7, 16), torch.float32, 2)
    assert torch.equal(linear(x, weight).view(30, 7), linear(x.view(30, 16), weight))
    assert linear(x[0, 0, 0], weight).shape == (7,)


def test_every_nan_is_the_quiet_one(isa: str, bits: Bits) -> None:
    for dtype, quiet in zip(DTYPES, (0x7FC00000, 0x7FC0, 0x7E00), strict=True):
        x = torch.full((3, 40), float("inf"), dtype=dtype)
        weight = torch.ones(40, 40, dtype=dtype)
        weight[:, 1] = -1
        assert set(bits(linear(x, weight, isa=isa)).flatten().tolist()) == {quiet}


@pytest.mark.parametrize(
    ("x", "weight", "options", "error", "said"),
    [
        (torch.ones(2, 3), torch.ones(4, 5), {}, ValueError, "x [..., K], weight [N, K]"),
        (torch.ones(2, 3), torch.ones(4, 3).half(), {}, TypeError, "one dtype"),
        (torch.ones(2, 3), torch.ones(4, 3), {"tp_segments": 8}, ValueError, "multiple of 8"),
        (torch.ones(2, 3), torch.ones(4, 3), {"tp_segments": 2}, ValueError, "1 and 8"),
        (torch.ones(2, 3), torch.ones(4, 3), {"initial": torch.ones(3)}, ValueError, "initial"),
        (torch.ones(2, 3), torch.ones(4, 3), {"isa": "mmx"}, BackendError, "scalar"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    x: Tensor, weight: Tensor, options: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as refused:
        linear(x, weight, **options)  # type: ignore[arg-type]
    assert said in str(refused.value)
