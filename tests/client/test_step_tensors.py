"""Whatever layout the trainer has its tensors in, the service reads what the trainer meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_client.errors import MalformedStep
from driftscope_client.layouts import step_tensors
from driftscope_client.snapshot import TENSORS, size_in_memory, snapshot
from driftscope_client.step_body import step_body
from driftscope_probes.push import PushedStep, read_step
from driftscope_probes.push.rules import REQUIRED, RULES

LAYOUTS = ("packed", "numpy", "torch", "lists", "padded", "torch padded", "tensor per sequence")


def body_of(tensors: dict[str, Any], **metadata: object) -> bytes:
    return b"".join(step_body(step_tensors(snapshot(tensors)), metadata).chunks())


def read(folder: Path, tensors: dict[str, Any], **metadata: object) -> PushedStep:
    path = folder / "step.safetensors"
    path.write_bytes(body_of(tensors, **metadata))
    return read_step(path)


def columns(lengths: list[int], seed: int) -> dict[str, Any]:
    """Packed, in the dtypes of a trainer; each row's first and last token is unmasked."""
    random, tokens = np.random.default_rng(seed), sum(lengths)
    limits = np.cumsum([0, *lengths])
    rollout = np.log(random.beta(3, 1, tokens)).astype(np.float32)
    rollout[random.random(tokens) < 0.1] = random.choice([np.nan, -np.inf, 0.0])
    mask = random.random(tokens) < 0.7
    mask[limits[:-1][np.diff(limits) > 0]] = mask[limits[1:][np.diff(limits) > 0] - 1] = True
    return {
        "rollout_logprobs": rollout,
        "trainer_logprobs": rollout + random.normal(0, 0.1, tokens).astype(np.float32),
        "mask": mask,
        "token_ids": random.integers(0, 200_000, tokens),
        "advantages": random.normal(0, 1, tokens).astype(np.float32),
        "behavior_version": np.arange(len(lengths)),
        "rank": random.integers(0, 8, len(lengths)),
        "replica": random.integers(0, 3, len(lengths)),
        "cached_tokens": random.integers(0, 100, len(lengths)),
        "prompt_lengths": random.integers(100, 200, len(lengths)),
        "environment": random.integers(0, 2, len(lengths)),
    }


def laid_out(layout: str, packed: dict[str, Any], lengths: list[int]) -> dict[str, Any]:
    limits = np.cumsum([0, *lengths])
    if layout in ("packed", "numpy", "torch"):
        wrap = torch.from_numpy if layout == "torch" else np.asarray
        return {name: wrap(v.copy()) for name, v in packed.items()} | {"cu_seqlens": limits}
    given = {}
    for name, values in packed.items():
        rows = np.split(values, limits[1:-1])
        if TENSORS[name][0] == "sequence":
            given[name] = values.tolist()
        elif layout == "lists":
            given[name] = [row.tolist() for row in rows]
        elif layout == "tensor per sequence":
            given[name] = [torch.from_numpy(row.copy()) for row in rows]
        else:
            given[name] = np.full((len(rows), max(lengths) + 2), 0, values.dtype)
            for place, row in enumerate(rows):
                given[name][place, 1 : len(row) + 1] = row  # padded on both sides
            if layout == "torch padded":
                given[name] = torch.from_numpy(given[name])
    return given


def test_the_tensors_are_those_of_the_push_format() -> None:
    assert {name: per for name, (per, _) in TENSORS.items()} == {
        name: rule.per for name, rule in RULES.items()
    }
    assert list(TENSORS) == list(RULES)
    assert set(REQUIRED) <= set(TENSORS)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(any), st.integers(0, 9), st.data()
)
def test_every_layout_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("step", numbered=True)
    packed = columns(lengths, seed)
    layout = data.draw(st.sampled_from(LAYOUTS))
    step = read(folder, laid_out(layout, packed, lengths), model="m", step=3, absent=None)
    assert step.cu_seqlens.tolist() == np.cumsum([0, *lengths]).tolist()
    for name, expected in packed.items():
        np.testing.assert_array_equal(step.tensors()[name], expected, err_msg=name)
    assert step.metadata == {"schema_version": "1", "model": "m", "step": "3"}


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (torch.tensor([-0.1, float("-inf"), -3e-39], dtype=torch.bfloat16), "BF16"),
        (torch.tensor([-0.1, float("nan"), -6e-8], dtype=torch.float16), "F16"),
        (np.array([-0.1, -1e-44, 0.0], dtype=np.float32), "F32"),
        (np.array([-0.1, -2.0, -3.0]), "F32"),
        (torch.tensor([-0.1, -2.0, -3.0], requires_grad=True), "F32"),
        (torch.arange(6.0)[::2].neg(), "F32"),
        ([-0.1, None, float("-inf")], "F32"),
        ([-1, 0, -2], "F32"),
    ],
)
def test_logprobs_keep_their_dtype_and_every_bit(tmp_path: Path, values: Any, dtype: str) -> None:
    limits = [0, 3]
    given = {"rollout_logprobs": values, "trainer_logprobs": values, "cu_seqlens": limits}
    assert step_tensors(snapshot(given))["rollout_logprobs"].dtype == dtype
    if isinstance(values, torch.Tensor):
        expected = values.detach().float().numpy()
    else:
        expected = np.array(values, dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(read(tmp_path, given).rollout, expected)


def test_the_safetensors_library_reads_the_body(step: dict[str, Any]) -> None:
    experts = np.arange(12).reshape(6, 2, 1) * 30
    body = body_of(step | {"routed_experts": experts}, model="Lláma ✓")
    loaded = safetensors.numpy.load(body)
    np.testing.assert_array_equal(loaded["rollout_logprobs"], step["rollout_logprobs"])
    np.testing.assert_array_equal(loaded["routed_experts"], experts)
    assert loaded["routed_experts"].dtype == np.int16
    assert loaded["token_ids"].dtype == np.int32


@pytest.mark.parametrize(
    ("least", "largest", "dtype"),
    [
        (0, 255, "U8"),
        (-1, 63, "I16"),
        (0, 256, "I16"),
        (-1, 2**15 - 1, "I16"),
        (0, 2**15, "U16"),
        (0, 2**16 - 1, "U16"),
        (-1, 2**15, "I32"),
        (0, 2**31 - 1, "I32"),
    ],
)
@pytest.mark.parametrize("given", [np.int64, np.int32, "torch"])
def test_expert_ids_take_the_smallest_dtype_that_keeps_them(
    tmp_path: Path, step: dict[str, Any], least: int, largest: int, dtype: str, given: Any
) -> None:
    ids = np.linspace(least, largest, 12).astype(np.int64).reshape(6, 2, 1)
    routes: Any = torch.from_numpy(ids) if given == "torch" else ids.astype(given)
    both = step | {"routed_experts": routes, "trainer_routed_experts": routes}
    assert step_tensors(snapshot(both))["routed_experts"].dtype == dtype
    read_back = read(tmp_path, both)
    for found in (read_back.routed_experts, read_back.trainer_routed_experts):
        np.testing.assert_array_equal(found, ids)


@pytest.mark.parametrize("wrap", [torch.tensor, np.array])
def test_a_label_may_come_as_one_number_per_sequence(step: dict[str, Any], wrap: Any) -> None:
    given = step | {"replica": [wrap(4), wrap(1)]}
    assert step_tensors(snapshot(given))["replica"].values.tolist() == [4, 1]


def test_a_shards_rank_is_that_of_its_sequences(step: dict[str, Any]) -> None:
    assert step_tensors(snapshot(step), 3)["rank"].values.tolist() == [3, 3]
    own = step_tensors(snapshot(step | {"rank": [6, 7]}), 3)
    assert own["rank"].values.tolist() == [6, 7]
    assert "rank" not in step_tensors(snapshot(step))


def test_the_same_step_is_the_same_bytes(step: dict[str, Any]) -> None:
    turned = dict(reversed(step.items()))
    assert body_of(step, a=1, b=2) == body_of(turned, b=2, a=1)
    assert body_of(step, a=1) != body_of(step, a=2)


def test_buffers_may_be_used_again_at_once() -> None:
    rollout: list[Any] = [torch.full((2,), -1.0), np.full(1, -1.0, np.float32)]
    listed = [[-1.0, -1.0], [-1.0]]
    copies = snapshot({"rollout_logprobs": rollout, "trainer_logprobs": listed})
    for buffer in rollout:
        buffer[:] = 7.0
    listed[0][0] = 7.0
    tensors = step_tensors(copies)
    assert tensors["rollout_logprobs"].values.tolist() == [-1.0] * 3
    assert tensors["trainer_logprobs"].values.tolist() == [-1.0] * 3
    assert size_in_memory(copies) >= 3 * 4 + 3 * 8


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tokenids": [1]}, "tokenids"),
        ({"trainer_logprobs": None}, "both sides"),
        ({"cu_seqlens": None}, "no cu_seqlens"),
        ({"token_ids": np.arange(5)}, r"token_ids has shape \[5\]"),
        ({"token_ids": np.arange(6) * 1.5}, "integers"),
        ({"token_ids": [0.5] * 6}, "not an integer"),
        ({"token_ids": np.arange(6) + 2**31}, "outside"),
        ({"mask": np.full(6, 0.5)}, "mask holds 0.5; accepted are 0 and 1"),
        ({"rollout_logprobs": np.arange(6)}, "floats"),
        ({"rollout_logprobs": np.full(6, -1e300)}, "beyond the range"),
        ({"rollout_logprobs": "text"}, "is a str"),
        ({"rollout_logprobs": np.zeros((2, 3), np.float32)}, "takes a mask"),
        ({"rollout_logprobs": [[-1.0], [-2.0] * 5]}, "cu_seqlens as well"),
        ({"behavior_version": [1, 2, 3]}, "behavior_version has shape"),
        ({"routed_experts": np.zeros(6, np.uint8)}, "routed_experts has shape"),
        ({"routed_experts": np.full((6, 1, 1), 2**31)}, "ids from 2147483648 to 2147483648"),
        ({"routed_experts": np.full((6, 1, 1), 0.5)}, "float64; accepted are integers"),
        ({"rank": [0, 1, 2]}, "rank has shape"),
        ({"prompt_lengths": np.array([1.5, 2.0])}, "integers"),
    ],
)
def test_what_makes_no_step_is_named(
    step: dict[str, Any], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(MalformedStep, match=told) as error:
        step_tensors(snapshot(step | changes))
    assert error.value.remedy


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"token_ids": [[1, 2], [3]]}, r"token_ids has 2 tokens in sequence 0 \(number 1 of 2\)"),
        (
            {"trainer_logprobs": [np.zeros(1, np.float32), np.zeros(2)]},
            "different dtypes or shapes: float32 of shape",
        ),
    ],
)
def test_sequences_that_disagree_are_named(changes: dict[str, Any], told: str) -> None:
    given = {"rollout_logprobs": [[-1.0], [-1.0, -2.0]], "trainer_logprobs": [[-1.0], [-1.0, -2.0]]}
    with pytest.raises(MalformedStep, match=told):
        step_tensors(snapshot(given | changes))
