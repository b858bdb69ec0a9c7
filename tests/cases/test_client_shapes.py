"""Tensors in the shapes that trainers hold, through the real client to the real service: taken, or
refused with the name of the tensor and what to write instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from driftscope_client import DriftscopeClient
from driftscope_client.errors import MalformedStep

LENGTHS = (29, 46, 30, 40, 45, 38, 39, 36)
SEQUENCES = len(LENGTHS)
LIMITS = np.cumsum([0, *LENGTHS])
LONGEST = max(LENGTHS)
SEED = 15
DTYPES = {"rollout_dtype": "bf16", "trainer_dtype": "bf16"}
Array = NDArray[Any]


def _sides() -> tuple[Array, Array]:
    random = np.random.default_rng(SEED)
    rollout = np.log(random.beta(4, 1, LIMITS[-1])).astype(np.float32)
    return rollout, (rollout * random.normal(1, 0.02, rollout.size)).astype(np.float32)


ROLLOUT, TRAINER = _sides()
MEAN = float(np.abs(TRAINER.astype(np.float64) - ROLLOUT).mean())


def rows(values: Array) -> list[Array]:
    return np.split(values, LIMITS[1:-1])


def padded(values: Array) -> torch.Tensor:
    found = torch.zeros(SEQUENCES, LONGEST, dtype=torch.from_numpy(values[:1].copy()).dtype)
    for row, part in enumerate(rows(values)):
        found[row, : part.size] = torch.from_numpy(part.copy())
    return found


def nested(values: Array) -> torch.Tensor:
    parts = [torch.from_numpy(part.copy()) for part in rows(values)]
    return torch.nested.nested_tensor(parts, layout=torch.jagged)


ONES = padded(np.ones(ROLLOUT.size, np.int64))
LISTED = {"rollout_logprobs": rows(ROLLOUT), "trainer_logprobs": rows(TRAINER)}
PADDED = {
    "rollout_logprobs": padded(ROLLOUT),
    "trainer_logprobs": padded(TRAINER),
    "mask": ONES,
}
FLAT = {"rollout_logprobs": ROLLOUT, "trainer_logprobs": TRAINER, "cu_seqlens": LIMITS}
ADVANTAGES = torch.linspace(-1, 1, SEQUENCES)
EXPERTS = np.arange(ROLLOUT.size)[:, None, None] * np.ones((1, 2, 2), np.int64)

#: What is taken, and mean |Δ| where it is not that of the sides in float32.
TAKEN: dict[str, dict[str, Any]] = {
    "nested, jagged": {
        "rollout_logprobs": nested(ROLLOUT),
        "trainer_logprobs": nested(TRAINER).requires_grad_(),
        "mask": nested(np.ones(ROLLOUT.size, np.int64)),
    },
    "a list of [1, T]": {name: [part[None] for part in parts] for name, parts in LISTED.items()},
    "a list of [T, 1]": {name: [part[:, None] for part in parts] for name, parts in LISTED.items()},
    "a list of tensors [1, T]": {
        name: [torch.from_numpy(part[None].copy()) for part in parts]
        for name, parts in LISTED.items()
    },
    "packed [1, T]": {name: values[None] for name, values in FLAT.items()},
    "padded [B, T, 1]": {name: values[..., None] for name, values in PADDED.items()},
    "advantages [B]": {**PADDED, "advantages": ADVANTAGES},
    "advantages [B, 1]": {**PADDED, "advantages": ADVANTAGES[:, None]},
    "advantages [B], flat": {**FLAT, "advantages": ADVANTAGES.numpy()},
    "advantages, one number per response": {**LISTED, "advantages": ADVANTAGES.tolist()},
    "advantages, one tensor per response": {**LISTED, "advantages": list(ADVANTAGES)},
    "no route": {**FLAT, "routed_experts": np.where(EXPERTS % 7 == 0, -1, EXPERTS % 128)},
    "more than 256 experts": {**FLAT, "routed_experts": EXPERTS + 250},
    "65,536 experts": {**FLAT, "routed_experts": EXPERTS + 65_000},
    "experts of [1, T, layers, k]": {
        **LISTED,
        "routed_experts": [part[None] for part in np.split(EXPERTS, LIMITS[1:-1])],
    },
    "version per token, listed": {
        **LISTED,
        "behavior_version": [np.full(n, 3, np.int32) for n in LENGTHS],
    },
    "version per token, flat": {**FLAT, "behavior_version": np.full(ROLLOUT.size, 3)},
    "version per token, padded": {**PADDED, "behavior_version": torch.full((8, LONGEST), 3)},
    "version per token, nested": {
        "rollout_logprobs": nested(ROLLOUT),
        "trainer_logprobs": nested(TRAINER),
        "behavior_version": nested(np.full(ROLLOUT.size, 3)),
    },
    "version per sequence": {**PADDED, "behavior_version": [3] * SEQUENCES},
}


@pytest.fixture(scope="module")
def client(running_service: str) -> Iterator[DriftscopeClient]:
    with DriftscopeClient(running_service, run="client-shapes") as pushing:
        yield pushing


@pytest.mark.parametrize(("step", "name"), list(enumerate(TAKEN)))
def test_what_a_trainer_holds_is_taken(client: DriftscopeClient, step: int, name: str) -> None:
    about = DTYPES | ({"weights_version": "4"} if "version" in name else {})
    answer = client.push_now(step, metadata=about, **TAKEN[name])
    comparison = answer["comparison"]
    assert (comparison["tokens"], comparison["sequences"]) == (ROLLOUT.size, SEQUENCES)
    assert comparison["abs_diff_mean"] == pytest.approx(MEAN, rel=1e-9)
    if "version" in name:
        assert (comparison["lag_max"], comparison["stale_token_share"]) == (1, 1.0)


def test_versions_within_a_response_count_token_by_token(client: DriftscopeClient) -> None:
    versions = [np.where(np.arange(n) < n // 2, 8, 10) for n in LENGTHS]
    about = {**DTYPES, "weights_version": "10"}
    answer = client.push_now(100, metadata=about, **LISTED, behavior_version=versions)
    late = np.concatenate(versions) == 10
    gaps = np.abs(TRAINER.astype(np.float64) - ROLLOUT)
    found = answer["comparison"]
    assert found["lag_max"] == 2
    assert found["lag_mean"] == pytest.approx(2 * (1 - late.mean()))
    assert found["lag0_abs_diff_mean"] == pytest.approx(gaps[late].mean(), rel=1e-9)
    above = max(0.0, gaps[~late].mean() - gaps[late].mean())
    assert found["staleness_share"] == pytest.approx(above / gaps[~late].mean(), abs=1e-9)


def test_expert_ids_come_back_as_they_were(client: DriftscopeClient) -> None:
    """Beyond uint8 and uint16 nothing wraps: equal routes of both sides stay equal."""
    for step, ids in enumerate(
        (EXPERTS + 250, EXPERTS + 65_400, np.where(EXPERTS % 5, EXPERTS, -1))
    ):
        other = ids.copy()
        other[:10][ids[:10] >= 0] += 256  # what a uint8 would not see
        answer = client.push_now(
            200 + step, metadata=DTYPES, **FLAT, routed_experts=ids, trainer_routed_experts=other
        )
        found = answer["routing"]["agreement"]
        routed = ids[:, 0, 0] >= 0
        assert found["tokens"] == routed.sum()
        assert found["tokens_flipped"] * found["tokens"] == pytest.approx(routed[:10].sum())


TRIPLES = [
    [[float(value), index, None] for index, value in enumerate(part)] for part in rows(ROLLOUT)
]
SHORTER = [part[:-1] for part in rows(TRAINER)]
#: What is refused: the tensors, what the message names, and what the remedy says.
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "SGLang's triples": (
        {**LISTED, "rollout_logprobs": TRIPLES},
        "rollout_logprobs holds triples of log-probability, token id and text",
        "token[0] for token in one",
    ),
    "SGLang's triples of one answer": (
        {"rollout_logprobs": TRIPLES[0], "trainer_logprobs": LISTED["trainer_logprobs"][0]},
        "rollout_logprobs holds triples",
        "rollout_token_ids",
    ),
    "vLLM's dicts": (
        {**LISTED, "rollout_logprobs": [[{7: -0.5}]]},
        "rollout_logprobs is a dict",
        "at[token].logprob",
    ),
    "one fewer in every response": (
        {**LISTED, "trainer_logprobs": SHORTER},
        "8 of 8 sequences differ: every sequence has one more on the rollout side.",
        "a stop token that one side counts",
    ),
    "one column fewer": (
        {**PADDED, "trainer_logprobs": PADDED["trainer_logprobs"][:, :-1]},
        "trainer_logprobs has shape [8, 45]; rollout_logprobs has [8, 46]",
        "logits[:, :-1]",
    ),
    "labels for a mask": (
        {**PADDED, "mask": torch.where(ONES == 1, 1, -100)},
        "mask holds -100",
        "mask=(labels != -100)",
    ),
    "weights for a mask": ({**PADDED, "mask": ONES * 0.5}, "mask holds 0.5", "mask != 0"),
    "no mask": (
        {name: PADDED[name] for name in LISTED},
        "rollout_logprobs is padded, [8, 46]",
        "with a mask",
    ),
    "huge ids": (
        {**FLAT, "token_ids": np.arange(ROLLOUT.size) + 5_000_000_000},
        "token_ids holds 5000000000",
        "before any offset or hash",
    ),
    "another name": (
        {**FLAT, "response_mask": np.ones(ROLLOUT.size)},
        "there is a tensor 'response_mask'",
        "call it mask",
    ),
    "one value per sequence too few": (
        {**FLAT, "entropy": ROLLOUT[:-8]},
        "entropy has shape [295]",
        "one value fewer for every sequence",
    ),
    "ids as log-probabilities": (
        {**FLAT, "rollout_logprobs": np.arange(ROLLOUT.size)},
        "rollout_logprobs has dtype int64",
        "token ids go into token_ids",
    ),
    "both ways to say lengths": (
        {**LISTED, "cu_seqlens": LIMITS},
        "one entry per sequence, and cu_seqlens as well",
        "leave cu_seqlens out",
    ),
    "sparse": (
        {**FLAT, "rollout_logprobs": torch.from_numpy(ROLLOUT).to_sparse()},
        "rollout_logprobs is a Tensor of layout torch.sparse_coo",
        "to_dense()",
    ),
    "both kinds of versions": (
        {
            **FLAT,
            "behavior_version": np.full(ROLLOUT.size, 3),
            "token_behavior_version": np.full(ROLLOUT.size, 3),
        },
        "behavior_version is one per token",
        "token_behavior_version alone",
    ),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_older_layout_of_nested_tensors(client: DriftscopeClient) -> None:
    sides = {
        name: torch.nested.nested_tensor([torch.from_numpy(part.copy()) for part in parts])
        for name, parts in LISTED.items()
    }
    answer = client.push_now(101, metadata=DTYPES, **sides)
    assert answer["comparison"]["abs_diff_mean"] == pytest.approx(MEAN, rel=1e-9)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_names_the_tensor_and_the_remedy(
    client: DriftscopeClient, name: str
) -> None:
    tensors, told, remedy = REFUSED[name]
    with pytest.raises(MalformedStep) as error:
        client.push_now(900, metadata=DTYPES, **tensors)
    assert told in error.value.message
    assert remedy in error.value.remedy


def test_no_two_refusals_have_the_same_remedy(client: DriftscopeClient) -> None:
    remedies: dict[str, str] = {}
    push: Callable[..., Any] = client.push_now
    for name, (tensors, _, _) in REFUSED.items():
        with pytest.raises(MalformedStep) as error:
            push(901, metadata=DTYPES, **tensors)
        remedies[name] = error.value.remedy
    assert remedies.pop("SGLang's triples of one answer") == remedies["SGLang's triples"]
    assert len(set(remedies.values())) == len(remedies)
