"""How a decoder is cut into ops, from the tensors that were seen."""

from __future__ import annotations

import pytest

from driftscope_probes.explain.sites import Place, Site, sites_of, uncovered_of

OUTSIDE = ("embedding", "residual_out", "final_norm", "logits", "logprob")
ATTENTION = (
    "attention_norm q_proj k_proj v_proj q_rotary k_rotary attention o_proj residual_mid mlp_norm"
).split()
DENSE = ("gate_proj", "up_proj", "activation", "down_proj")


def places(
    *extra: str, without: str = "", layers: int = 2, mlp: tuple[str, ...] = DENSE
) -> list[Place]:
    found = [Place(None, name) for name in OUTSIDE]
    for layer in range(layers):
        names = [*ATTENTION, *mlp, *extra, *(["residual_in"] if layer else [])]
        found += [Place(layer, name) for name in names]
    return [place for place in found if place.name != without]


def site(sites: list[Site], key: str) -> Site:
    return next(one for one in sites if one.key == key)


def test_the_first_norm_adds_nothing_and_later_ones_add_the_update() -> None:
    sites = sites_of(places())
    assert site(sites, "0.attention_norm").kind == "norm"
    later = site(sites, "1.attention_norm")
    assert later.kind == "residual_norm"
    assert later.inputs == {"update": Place(0, "down_proj"), "stream": Place(0, "residual_mid")}
    assert later.outputs == {
        "stream": Place(1, "residual_in"),
        "normed": Place(1, "attention_norm"),
    }
    last = site(sites, "final_norm")
    assert last.inputs == {"update": Place(1, "down_proj"), "stream": Place(1, "residual_mid")}


def test_sites_come_in_the_order_in_which_they_run() -> None:
    keys = [one.key for one in sites_of(places(layers=1))]
    assert keys == [
        "embedding",
        *(f"0.{name}" for name in ("attention_norm", "q_proj", "k_proj", "v_proj", "rotary")),
        *(f"0.{name}" for name in ("attention", "o_proj", "mlp_norm", "gate_proj", "up_proj")),
        *("0.activation", "0.down_proj", "final_norm", "lm_head", "logprob"),
    ]


def test_norms_of_heads_stand_between_projection_and_rotary() -> None:
    sites = sites_of(places("q_norm", "k_norm"))
    assert site(sites, "0.q_norm").inputs == {"x": Place(0, "q_proj")}
    assert site(sites, "0.rotary").inputs == {"q": Place(0, "q_norm"), "k": Place(0, "k_norm")}


def test_output_norms_are_what_is_added() -> None:
    sites = sites_of(places("attention_output_norm", "mlp_output_norm"))
    assert site(sites, "0.mlp_norm").inputs["update"] == Place(0, "attention_output_norm")
    assert site(sites, "1.attention_norm").inputs["update"] == Place(0, "mlp_output_norm")


def test_a_mixture_has_router_choice_and_experts() -> None:
    sites = sites_of(places(mlp=("router", "top_k_weights", "top_k_experts", "experts")))
    assert site(sites, "0.top_k").inputs == {"logits": Place(0, "router")}
    assert site(sites, "final_norm").inputs["update"] == Place(1, "experts")
    assert not any(one.kind == "activation" for one in sites)


@pytest.mark.parametrize("lost", ["q_rotary", "attention", "residual_mid", "logits"])
def test_an_op_that_lacks_a_tensor_is_left_out_and_its_others_are_uncovered(lost: str) -> None:
    seen = places(without=lost)
    sites = sites_of(seen)
    used = {p for one in sites for p in (*one.inputs.values(), *one.outputs.values())}
    assert all(place.name != lost for place in used)
    assert set(uncovered_of(seen, sites)) == {p.key for p in seen if p not in used}


@pytest.mark.parametrize("place", [Place(None, "final_norm"), Place(3, "q_proj")])
def test_keys_are_read_back(place: Place) -> None:
    assert Place.of_key(place.key) == place
