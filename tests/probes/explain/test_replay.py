"""Ops replaced in a run: from this run's own inputs, rows in any batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import AttentionParameters, LinearParameters
from driftscope_kernels.compare_ops.registry import FAMILIES
from driftscope_probes.explain.replay import SiteWay, Swapped
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sites import Place, Site
from driftscope_probes.explain.store import Store

SAMPLE = Sample(prompts=((1, 2, 3), (4, 5)), responses=((6, 7), (8,)))
ROWS = SAMPLE.rows
FLOAT32 = torch.float32


def linear() -> SiteWay:
    weight = torch.randn(3, 4)
    site = Site(0, "q_proj", "linear", {"x": Place(0, "attention_norm")}, {"y": Place(0, "q_proj")})
    plain = FAMILIES["linear"].variants(LinearParameters(weight))[0]
    return SiteWay(site, plain, LinearParameters(weight), {"x": FLOAT32}, FLOAT32)


def attention() -> SiteWay:
    places = {name: Place(0, f"{name}_rotary") for name in "qk"} | {"v": Place(0, "v_proj")}
    site = Site(0, "attention", "attention", places, {"out": Place(0, "attention")})
    parameters = AttentionParameters(heads=2, kv_heads=1, head_dim=4, scale=0.5)
    plain = FAMILIES["attention"].variants(parameters)[0]
    return SiteWay(site, plain, parameters, dict.fromkeys("qkv", FLOAT32), FLOAT32)


def run(way: SiteWay, given: dict[str, Tensor], batches: list[list[int]]) -> Tensor:
    """What the tap puts in the place of the op's output, [rows, features]."""
    (place,) = way.site.outputs.values()
    with Store(ROWS) as store:
        tap = Swapped(SAMPLE, [way], store)
        for batch in batches:
            rows = torch.tensor(batch)
            for name, value in given.items():
                tap.at(way.site.inputs[name], value[rows], rows)
            width = 3 if way.site.kind == "linear" else 8
            tap.at(place, torch.full((len(batch), width), torch.nan), rows)
        return store.read(place)


@pytest.mark.parametrize("batches", [[[0, 1, 2, 3, 4, 5]], [[4, 5, 0], [2, 1], [3]]])
def test_a_linear_layer_in_any_batch(batches: list[list[int]]) -> None:
    torch.manual_seed(0)
    way, x = linear(), torch.randn(ROWS, 4)
    expected = x.double() @ way.parameters.weight.double().t()  # type: ignore[union-attr]
    assert torch.allclose(run(way, {"x": x}, batches).double(), expected, atol=1e-6)


@pytest.mark.parametrize("batches", [[[0, 1, 2, 3, 4, 5]], [[0, 1, 4], [2, 5], [3]]])
def test_attention_reads_what_earlier_steps_gave(batches: list[list[int]]) -> None:
    """Decoding token by token gives what a prefill gives, and no sequence sees another."""
    torch.manual_seed(0)
    given = {"q": torch.randn(ROWS, 8), "k": torch.randn(ROWS, 4), "v": torch.randn(ROWS, 4)}
    found = run(attention(), given, batches)
    for first, end in ((0, 4), (4, 6)):
        q, k, v = (given[name][first:end].double() for name in "qkv")
        for row in range(end - first):
            for head in range(2):
                mine = q[row, 4 * head : 4 * head + 4]
                weights = torch.softmax(0.5 * (k[: row + 1] @ mine), 0)
                expected = weights @ v[: row + 1]
                part = found[first + row, 4 * head : 4 * head + 4].double()
                assert torch.allclose(part, expected, atol=1e-6)
