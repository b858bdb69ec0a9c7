"""Against the safetensors library: what is accepted is what it reads; all else is a PushError."""

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from driftscope_probes.push.rules import PushError
from driftscope_probes.push.safetensors_step import read_safetensors_step
from driftscope_probes.tokens import SEQUENCE_LABELS
from driftscope_probes.trace import Trace, TraceMeta
from driftscope_probes.trace_file import write_pair

Tensors = dict[str, NDArray[Any]]
ByHand = Callable[..., Path]
fuzzed = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def assert_as_the_library_reads(path: Path) -> None:
    step = read_safetensors_step(path)
    # Through torch: numpy has no bfloat16, and a file may hold it.
    with safe_open(path, framework="pt") as opened:
        names = set(opened.keys())
        assert names | {"mask"} == set(step.tensors())
        for name in names:
            tensor, read = opened.get_tensor(name), step.tensors()[name]
            expected = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
            np.testing.assert_array_equal(read, expected.astype(read.dtype), err_msg=name)
        assert (opened.metadata() or {}).items() <= dict(step.metadata).items()


def test_every_tensor_is_read(good: Path, tensors: Tensors) -> None:
    assert_as_the_library_reads(good)
    step = read_safetensors_step(good)
    assert set(step.tensors()) == set(tensors)
    assert (step.tokens, step.sequences) == (7, 3)
    assert step.trainer.dtype == np.float32


LOGPROBS = st.one_of(
    st.sampled_from([0.0, -0.0, float("nan"), float("inf"), float("-inf"), 2.5]),
    st.floats(width=16),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    dtype=st.sampled_from([np.float16, np.float32]),
    data=st.data(),
)
def test_round_trip_keeps_every_value(
    tmp_path: Path, lengths: list[int], dtype: type[Any], data: st.DataObject
) -> None:
    tokens = sum(lengths)
    sides = {
        name: data.draw(arrays.arrays(dtype, tokens, elements=LOGPROBS))
        for name in ("rollout_logprobs", "trainer_logprobs")
    }
    path = tmp_path / "step.safetensors"
    save_file({**sides, "cu_seqlens": np.cumsum([0, *lengths])}, path)
    step = read_safetensors_step(path)
    for name, sent in sides.items():
        received = step.tensors()[name]
        np.testing.assert_array_equal(received, sent.astype(np.float32))
        np.testing.assert_array_equal(np.signbit(received), np.signbit(sent))
    assert step.mask.all()
    assert step.cu_seqlens.tolist() == np.cumsum([0, *lengths]).tolist()


def test_bfloat16_as_torch_writes_it(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    logprobs = torch.tensor([-0.1, -7.25, float("-inf")], dtype=torch.bfloat16)
    limits = torch.tensor([0, 3])
    mask = torch.tensor([True, False, True])
    both = {"rollout_logprobs": logprobs, "trainer_logprobs": logprobs.clone()}
    save_torch({**both, "cu_seqlens": limits, "mask": mask}, tmp_path / "s.safetensors")
    step = read_safetensors_step(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(step.rollout, logprobs.float().numpy())
    assert step.mask.tolist() == [True, False, True]


def test_padded_becomes_ragged(tmp_path: Path) -> None:
    """Left and right padding, a hole (tool output) and a row without any response."""
    mask = np.array([[0, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]], np.uint8)
    places = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensors: Tensors = {
        "rollout_logprobs": -places,
        "trainer_logprobs": (-places).astype(np.float16),
        "mask": mask,
        "token_ids": np.arange(12, dtype=np.int32).reshape(3, 4),
        "behavior_version": np.array([1, 2, 3], np.int32),
        "rank": np.array([5, 0, 5], np.int32),
        "environment": np.array([0, 1, 0], np.int32),
        "routed_experts": np.arange(24, dtype=np.uint16).reshape(3, 4, 1, 2) + np.uint16(60_000),
    }
    save_file(tensors, tmp_path / "padded.safetensors")
    step = read_safetensors_step(tmp_path / "padded.safetensors")
    assert step.cu_seqlens.tolist() == [0, 2, 6, 6]
    assert step.rollout.tolist() == [-1, -2, -4, -5, -6, -7]
    assert step.trainer.tolist() == [-1, -2, -4, -5, -6, -7]
    assert step.mask.tolist() == [True, True, True, False, True, True]
    assert step.tensors()["token_ids"].tolist() == [
        1,
        2,
        4,
        5,
        6,
        7,
    ]
    for name in ("behavior_version", "rank", "environment"):
        assert step.tensors()[name].tolist() == tensors[name].tolist()
    assert step.routed_experts is not None
    assert step.routed_experts[:, 0, 0].tolist() == [60_000 + i for i in (2, 4, 8, 10, 12, 14)]


EXPERTS = {"u1": (0, 255), "<i2": (-1, 2**15 - 1), "<u2": (0, 2**16 - 1), "<i4": (-1, 2**31 - 1)}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    kinds=st.tuples(st.sampled_from(sorted(EXPERTS)), st.sampled_from(sorted(EXPERTS))),
    names=st.sets(st.sampled_from(SEQUENCE_LABELS)),
    data=st.data(),
)
def test_labels_and_routes_come_back(
    tmp_path: Path,
    lengths: list[int],
    kinds: tuple[str, str],
    names: set[str],
    data: st.DataObject,
) -> None:
    tokens, tensors = sum(lengths), {"cu_seqlens": np.cumsum([0, *lengths])}
    for name in ("rollout_logprobs", "trainer_logprobs"):
        tensors[name] = np.full(tokens, -1, np.float32)
    for name in names:
        values = (
            st.integers(2**30, 2**31 - 1) if name == "prompt_lengths" else st.integers(0, 2**30)
        )
        tensors[name] = data.draw(arrays.arrays(np.int32, len(lengths), elements=values))
    for name, kind in zip(("routed_experts", "trainer_routed_experts"), kinds, strict=True):
        ids = st.integers(*EXPERTS[kind])
        tensors[name] = data.draw(arrays.arrays(np.dtype(kind), (tokens, 2, 1), elements=ids))
    save_file(tensors, tmp_path / "step.safetensors")
    step = read_safetensors_step(tmp_path / "step.safetensors").tensors()
    assert set(step) == {*tensors, "mask"}
    for name, sent in tensors.items():
        np.testing.assert_array_equal(step[name], sent, err_msg=name)
        assert step[name].dtype == sent.dtype


def test_sides_with_other_token_ids(good: Path, tensors: Tensors) -> None:
    tensors["rollout_token_ids"][3:] += 1
    save_file(tensors, good)
    assert_as_the_library_reads(good)


def test_experts_of_a_dtype_that_is_not_accepted(good: Path, tensors: Tensors) -> None:
    tensors["routed_experts"] = tensors["routed_experts"].astype(np.float32)
    save_file(tensors, good)
    with pytest.raises(PushError, match="'F32', accepted: U8, I16, U16, I32, I64") as caught:
        read_safetensors_step(good)
    assert "smallest of these that holds every id" in caught.value.remedy


def test_labels_that_cannot_be_true(good: Path, tensors: Tensors) -> None:
    save_file(tensors, good, {"environments": "math"})
    with pytest.raises(PushError, match="environment is 1 for sequence 0, .* lists 1"):
        read_safetensors_step(good)
    save_file({**tensors, "rank": np.array([0, 0, -2], np.int32)}, good)
    with pytest.raises(PushError, match="rank is -2 for sequence 2"):
        read_safetensors_step(good)


def test_what_the_paired_probe_writes(tmp_path: Path) -> None:
    def side(meta: TraceMeta) -> Trace:
        return Trace(
            token_ids=np.array([3, 4], np.int32),
            logprobs=np.array([-1.5, -2.0], np.float32),
            cu_seqlens=np.array([0, 2], np.int64),
            mask=np.array([True, False]),
            meta=meta,
        )

    rollout = side(TraceMeta("rollout", "m", "bf16", "vllm", "0.32", {"temperature": 0.7}))
    trainer = side(TraceMeta("trainer", "m", "fp32", "trainer", "5.19"))
    write_pair(rollout, trainer, tmp_path / "pair.safetensors")
    step = read_safetensors_step(tmp_path / "pair.safetensors")
    assert step.rollout.tolist() == [-1.5, -2.0]
    assert step.mask.tolist() == [True, False]
    assert (step.metadata["engine"], step.metadata["temperature"]) == ("vllm", "0.7")


@fuzzed
@given(share=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_refused(good: Path, share: float) -> None:
    whole = good.read_bytes()
    cut = good.with_name("cut.safetensors")
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(PushError):
        read_safetensors_step(cut)


@fuzzed
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))))
def test_changed_bytes_are_refused_or_read_as_they_stand(
    good: Path, changes: list[tuple[float, int]]
) -> None:
    content = bytearray(good.read_bytes())
    for share, value in changes:
        content[int(share * len(content))] = value
    changed = good.with_name("changed.safetensors")
    changed.write_bytes(content)
    try:
        assert_as_the_library_reads(changed)
    except PushError as error:
        assert error.message and error.remedy


@fuzzed
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))))
def test_changed_bytes_of_a_padded_file(tmp_path: Path, changes: list[tuple[float, int]]) -> None:
    mask = np.array([[0, 1, 1, 0], [1, 0, 1, 1]], np.uint8)
    both = {name: np.zeros((2, 4), np.float16) for name in ("rollout_logprobs", "trainer_logprobs")}
    path = tmp_path / "padded.safetensors"
    save_file({**both, "mask": mask}, path)
    content = bytearray(path.read_bytes())
    for share, value in changes:
        content[int(share * len(content))] = value
    path.write_bytes(content)
    try:
        step = read_safetensors_step(path)
    except PushError as error:
        assert error.message and error.remedy
    else:
        with safe_open(path, framework="numpy") as opened:
            unmasked = opened.get_tensor("mask").astype(bool)
            sent = opened.get_tensor("rollout_logprobs")[unmasked]
        np.testing.assert_array_equal(step.rollout[step.mask], sent.astype(np.float32))


SIZES = st.one_of(
    st.sampled_from([-1, 0, 1, 6, 7, 8, 28, 2**31, 2**32, 2**53, 2**61, 2**63, 2**64, 10**30]),
    st.integers(0, 300),
)
VALUES = st.one_of(SIZES, st.none(), st.booleans(), st.text(max_size=3), st.floats())
ENTRIES = {
    "dtype": st.one_of(st.sampled_from(["F32", "F16", "BF16", "U8", "BOOL", "I64", "F8"]), VALUES),
    "shape": st.one_of(st.lists(VALUES, max_size=4), VALUES),
    "data_offsets": st.one_of(st.lists(VALUES, max_size=3), VALUES),
}


@fuzzed
@given(data=st.data())
def test_a_lying_header_is_refused_or_true(good: Path, data: st.DataObject) -> None:
    whole = good.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    name = data.draw(st.sampled_from(sorted(header)))
    key = data.draw(st.sampled_from(sorted(ENTRIES)))
    header[name][key] = data.draw(ENTRIES[key])
    raw = json.dumps(header).encode()
    lying = good.with_name("lying.safetensors")
    lying.write_bytes(struct.pack("<Q", len(raw)) + raw + whole[8 + length :])
    try:
        assert_as_the_library_reads(lying)
    except PushError as error:
        assert error.message and error.remedy


def test_memory_stays_near_the_size_of_the_file(tmp_path: Path) -> None:
    rows, longest = 64, 4096
    shape = (rows, longest)
    both = {name: np.zeros(shape, np.float32) for name in ("rollout_logprobs", "trainer_logprobs")}
    padded, packed = tmp_path / "padded.safetensors", tmp_path / "packed.safetensors"
    save_file({**both, "mask": np.ones(shape, np.uint8)}, padded)
    limits = np.arange(rows + 1) * longest
    flat = {name: values.reshape(-1).astype(np.float16) for name, values in both.items()}
    save_file({**flat, "cu_seqlens": limits}, packed)
    for path, most in ((packed, 3), (padded, 3)):
        tracemalloc.start()
        read_safetensors_step(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most * path.stat().st_size, path.name
