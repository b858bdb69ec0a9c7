"""What the terminal says about the routes of a step."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from driftscope_probes.diagnosis.routing_integrity import routing_of
from driftscope_probes.diagnosis.routing_sign import NULLS
from driftscope_probes.tokens import Tokens
from driftscope_service.runs.routing_words import (
    SIGN_LABELS,
    print_routing,
    routing_sentence,
    routing_summary,
)

SIZE, LAYERS = 400, 5


def routing(flipped: int = 0, stale: int = 0, trainer: bool = True) -> dict[str, Any]:
    """`flipped` choices of layer 2 name another expert, `stale` tokens hold the row of token 10."""
    random = np.random.default_rng(1)
    rollout = random.random((SIZE, LAYERS, 16)).argsort(axis=-1)[..., :2]
    other = rollout.copy()
    other[:flipped, 2, 0] = 16
    rollout[10 : 10 + stale] = rollout[10]
    logprobs = -random.random(SIZE)
    tokens = Tokens(logprobs, logprobs + 0.125, np.array([0, SIZE]))
    found = routing_of(tokens, rollout, other if trainer else None)
    assert found is not None
    return found.to_dict()


def printed(document: dict[str, Any] | None) -> str:
    console = Console(width=60, record=True, file=io.StringIO())
    print_routing(document, console)
    return console.export_text()


def test_nothing_without_routes() -> None:
    assert printed(None) == "" and routing_summary(None) is None


def test_agreement_is_said() -> None:
    summary = routing_summary(routing())
    assert summary is not None
    assert summary.startswith("Experts: 0% of the choices differ: all 400 tokens")
    assert "all 400 tokens take the same experts in 5 layers on both sides." in printed(routing())


def test_flips_are_summed_up_with_what_they_do() -> None:
    assert routing_summary(routing(flipped=100)) == (
        "Experts: 5.00% of the choices differ, and 25.0% of 400 tokens have at least one that "
        "does: 0.250 of 5 layers per token. Mean |Δ| 0.125 with and 0.125 without one."
    )


def test_flips_are_a_table_of_both_groups() -> None:
    text = printed(routing(flipped=100))
    rows = {line[:20].strip(): line[20:].split() for line in text.splitlines()}
    assert rows["agree in all layers"] == ["300", "0.125", "0.00815", "0%", "0%", "0%"]
    assert rows["flip in any layer"] == ["100", "0.125", "0.00815", "0%", "0%", "0%"]


def test_the_layers_and_the_signs_that_were_not_found() -> None:
    text = printed(routing(flipped=100))
    rows = [line.split() for line in text.splitlines()]
    assert ["2", "25.0%", "87.5%", "0%"] in rows and ["3", "0%", "100%", "0%"] in rows
    for label in SIGN_LABELS.values():
        assert label in text
    assert text.count("Not significant.") == 8


def test_a_significant_sign_is_said_with_its_place() -> None:
    document = routing(stale=50)
    line = next(line for line in printed(document).splitlines() if line.startswith("one row in"))
    assert "(rollout): 50 successive tokens" in line
    assert "First at sequence 0, token 10. P at most" in line and line.endswith(".")
    summary = routing_summary(document)
    assert summary is not None and summary.endswith(
        "Signs of corrupt routes: one row in successive tokens (rollout), rows of another token."
    )


def test_what_cannot_be_told_from_corruption_is_said() -> None:
    text = printed(routing(stale=50, trainer=False))
    assert "Or a text that repeats one token, which token_ids would tell." in text


def test_one_side_says_what_is_missing() -> None:
    assert "no trainer_routed_experts" in routing_sentence(routing(trainer=False))


def test_without_a_captured_route() -> None:
    document = routing()
    document["agreement"]["choices_flipped"] = None
    assert routing_sentence(document) == "No unmasked token has a route on both sides."


@pytest.mark.parametrize("name", NULLS)
def test_every_sign_has_a_label(name: str) -> None:
    assert name in SIGN_LABELS
