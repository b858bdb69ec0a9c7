"""Lying, damaged and hostile headers: each is refused with its reason, before memory is taken."""

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.push import rules
from driftscope_probes.push.rules import PushError
from driftscope_probes.push.safetensors_step import SafetensorsHeader, read_header

ByHand = Callable[..., Path]


def header_of(path: Path) -> SafetensorsHeader:
    with path.open("rb") as stream:
        return read_header(stream)


def entry(shape: Any, begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_good_header(good: Path) -> None:
    header = header_of(good)
    assert header.metadata == {"schema_version": "1", "model": "m"}
    assert header.tensors["routed_experts"].shape == (7, 2, 3)
    assert max(tensor.end for tensor in header.tensors.values()) == good.stat().st_size


BAD_ENTRIES = [
    ("loss", entry([1], 0, 4), "there is a tensor 'loss'"),
    ("entropy", entry([1], 0, 4, "I32"), "entropy has dtype 'I32', accepted: F32, F64"),
    ("entropy", entry([1], 0, 4, ["F32"]), "entropy has dtype"),
    ("entropy", None, "exactly dtype, shape and data_offsets"),
    ("entropy", {**entry([1], 0, 4), "extra": 1}, "exactly dtype, shape and data_offsets"),
    ("entropy", entry([-1], 0, 4), "natural numbers"),
    ("entropy", entry([1.0], 0, 4), "natural numbers"),
    ("entropy", entry([True], 0, 4), "natural numbers"),
    ("entropy", entry("1", 0, 4), "natural numbers"),
    ("entropy", entry([1] * 5, 0, 4), "natural numbers"),
    ("entropy", entry([2**63], 0, 2**65), "natural numbers"),
    ("entropy", entry([2**62, 2**62], 0, 4), "its data_offsets span 4"),
    ("entropy", entry([10**4000, 10**4000], 0, 4), "natural numbers"),
    ("entropy", entry([2], 0, 4), "its shape needs 8 bytes, its data_offsets span 4"),
    ("entropy", entry([1], 4, 0), "its data_offsets span -4"),
    ("entropy", entry([1], "0", "4"), "natural numbers"),
    ("entropy", {"dtype": "F32", "shape": [1], "data_offsets": [4]}, "natural numbers"),
    ("entropy", entry([1], 4, 8), "leaves a gap"),
    ("entropy", entry([2**61], 0, 2**63 - 1), "data_offsets"),
    ("entropy", entry([2**60], 0, 2**62), "describes 4611686018427387904 bytes of data, 4 are"),
    ("entropy", entry([0], 0, 0), "describes 0 bytes of data, 4 are there"),
    ("__metadata__", {"model": 1}, "metadata 'model' is a int"),
]


@pytest.mark.parametrize(("name", "value", "told"), BAD_ENTRIES)
def test_a_bad_entry(by_hand: ByHand, name: str, value: object, told: str) -> None:
    with pytest.raises(PushError, match=told) as caught:
        header_of(by_hand({name: value}, bytes(4)))
    assert caught.value.remedy


def test_tensors_that_share_bytes(by_hand: ByHand) -> None:
    header = {"entropy": entry([2], 0, 8), "advantages": entry([2], 4, 12)}
    with pytest.raises(PushError, match="advantages is malformed: it overlaps another tensor"):
        header_of(by_hand(header, bytes(12)))


def test_a_name_given_twice(by_hand: ByHand) -> None:
    one = b'"entropy":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    with pytest.raises(PushError, match="'entropy' occurs twice"):
        header_of(by_hand(b"{" + one + b"," + one + b"}", bytes(4)))
    with pytest.raises(PushError, match="'shape' occurs twice"):
        header_of(by_hand(b'{"entropy":{"dtype":"F32","shape":[1],"shape":[1]}}', bytes(4)))


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff{}", b"[" * 100_000, b'{"a":' * 9999])
def test_a_header_that_is_no_object(by_hand: ByHand, raw: bytes) -> None:
    with pytest.raises(PushError, match="safetensors header (is|has)"):
        header_of(by_hand(raw))


@pytest.mark.parametrize("length", [3, rules.MAX_HEADER_BYTES + 1, 2**31, 2**63, 2**64 - 1])
def test_a_length_beyond_the_file_or_the_limit(by_hand: ByHand, length: int) -> None:
    with pytest.raises(PushError, match="its header claims"):
        header_of(by_hand(b"{}", length=length))


def test_a_header_just_beyond_the_limit_that_is_really_there(by_hand: ByHand) -> None:
    most = rules.MAX_HEADER_BYTES
    assert header_of(by_hand(b"{}" + b" " * (most - 2))).tensors == {}
    with pytest.raises(PushError, match="its header claims"):
        header_of(by_hand(b"{}" + b" " * (most - 1)))


@pytest.mark.parametrize("size", range(8))
def test_shorter_than_the_length(tmp_path: Path, size: int) -> None:
    (tmp_path / "short").write_bytes(bytes(size))
    with pytest.raises(PushError, match=f"ends after {size} bytes?"):
        header_of(tmp_path / "short")


def test_a_sparse_file_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", 2) + b"{}")
        stream.truncate(rules.MAX_FILE_BYTES + 1)
    with pytest.raises(PushError, match="accepted are 2,147,483,648"):
        header_of(path)


def test_no_lie_takes_memory(by_hand: ByHand) -> None:
    tracemalloc.start()
    for name, value, _ in BAD_ENTRIES:
        with pytest.raises(PushError):
            header_of(by_hand({name: value}, bytes(4)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
