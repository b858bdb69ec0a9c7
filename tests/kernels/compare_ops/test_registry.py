from __future__ import annotations

import torch

from driftscope_kernels.compare_ops.parameters import (
    LogprobParameters,
    NormParameters,
    RotaryParameters,
)
from driftscope_kernels.compare_ops.registry import FAMILIES
from driftscope_probes.explain.sites import KIND_LABELS

from . import row_ops


def test_only_kinds_that_a_decoder_is_cut_into_have_a_family() -> None:
    assert set(FAMILIES) <= set(KIND_LABELS)
    assert {"embedding", "norm", "residual_norm", "rotary", "activation", "logprob"} <= set(
        FAMILIES
    )


def test_families_name_what_a_site_gives() -> None:
    """The order in which sites.py names the outputs of each kind."""
    outputs = {kind: tuple(family.outputs) for kind, family in FAMILIES.items()}
    assert outputs["norm"] == ("normed",)
    assert outputs["residual_norm"] == ("stream", "normed")
    assert outputs["rotary"] == ("q", "k")
    assert outputs["activation"] == ("out",)
    assert outputs["embedding"] == ("out",)
    assert outputs["logprob"] == ("logprob",)


def test_an_output_without_numbers_fits_nothing() -> None:
    rows = torch.randn(32, 64)
    inputs = row_ops.packed(
        {"x": rows, "q": rows, "k": rows, "logits": rows}, 32, torch.zeros(32, dtype=torch.int64)
    )
    frequencies = 1.0 / 1e4 ** (torch.arange(0, 32, 2) / 32)
    for family, parameters in (
        (FAMILIES["norm"], NormParameters(torch.ones(64), 1e-5)),
        (FAMILIES["rotary"], RotaryParameters(32, frequencies)),
        (FAMILIES["logprob"], LogprobParameters()),
    ):
        for value in (float("nan"), float("inf"), 0.0):
            seen = tuple(
                torch.full_like(output, value)
                for output in family.variants(parameters)[0].run(inputs, parameters, torch.float32)
            )
            assert list(family.fitted(inputs, parameters, seen)) == []
