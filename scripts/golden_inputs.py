"""Seeded steps in every encoding of docs/push-format.md, and files that break its rules.

Written without the project's own code, which a golden run compares.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = Mapping[str, Array]
SAFETENSORS, ARROW = "application/vnd.safetensors", "application/vnd.apache.arrow.stream"
JSON = "application/json"
METADATA = {"schema_version": "1", "model": "golden", "weights_version": "7"}
BF16 = {**METADATA, "rollout_dtype": "bf16", "trainer_dtype": "bf16", "temperature": "1.0"}
DTYPES = {
    "f4": "F32",
    "f2": "F16",
    "u2": "BF16",
    "i4": "I32",
    "i8": "I64",
    "u1": "U8",
    "b1": "BOOL",
}
DTYPES |= {"i2": "I16", "f8": "F64"}


def safetensors(tensors: Tensors, metadata: Mapping[str, str] = BF16) -> bytes:
    """Written here, so that BF16 (as u2) and what no library would write are possible."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    data = b""
    for name, tensor in tensors.items():
        span = [len(data), len(data) + tensor.nbytes]
        dtype = DTYPES[tensor.dtype.str[1:]]
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": span}
        data += tensor.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def step(seed: int, lengths: Sequence[int], noise: float = 0.02) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    tokens = sum(lengths)
    rollout = -random.gamma(0.5, 1.2, tokens).astype(np.float32)
    trainer = rollout - (noise * rollout * random.standard_normal(tokens)).astype(np.float32)
    return {
        "rollout_logprobs": rollout,
        "trainer_logprobs": trainer,
        "token_ids": random.integers(0, 900, tokens).astype(np.int32),
        "cu_seqlens": np.cumsum([0, *lengths]).astype(np.int64),
    }


def full_step(seed: int, lengths: Sequence[int]) -> dict[str, Array]:
    tensors, random, tokens = step(seed, lengths), np.random.default_rng(seed + 1), sum(lengths)
    places = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    return tensors | {
        "mask": (random.random(tokens) < 0.8).astype(np.uint8),
        "rollout_token_ids": tensors["token_ids"],
        "advantages": random.standard_normal(tokens).astype(np.float32),
        "entropy": random.gamma(1.0, 1.0, tokens).astype(np.float32),
        "position_ids": places + np.int32(5),
        "turn_ids": places // np.int32(16),
        "behavior_version": (7 - np.arange(len(lengths)) % 4).astype(np.int32),
    }


def with_routes(tensors: dict[str, Array], dtype: str) -> dict[str, Array]:
    random, shape = np.random.default_rng(3), (tensors["token_ids"].size, 4, 2)
    routes = random.integers(0, 8, shape).astype(dtype)
    trainer = np.where(random.random(shape) < 0.05, (routes + 1) % 8, routes).astype(dtype)
    return tensors | {"routed_experts": routes, "trainer_routed_experts": trainer}


def odd_values() -> dict[str, Array]:
    tensors = step(11, [9, 30, 1])
    for place, value in ((0, np.nan), (3, -np.inf), (12, np.inf), (20, 0.0), (25, 0.75)):
        tensors["rollout_logprobs"][place] = value
        tensors["trainer_logprobs"][place + 1] = value
    return tensors


def padded_step() -> dict[str, Array]:
    random = np.random.default_rng(13)
    rollout = -random.gamma(0.5, 1.0, (3, 24)).astype(np.float32)
    mask = np.zeros((3, 24), dtype=np.bool_)
    mask[0, 4:20], mask[1, 10:12], mask[1, 11] = True, True, False
    return {
        "rollout_logprobs": rollout,
        "trainer_logprobs": rollout * np.float32(1.01),
        "mask": mask,
    }


def narrow(tensors: dict[str, Array]) -> dict[str, Array]:
    bits = tensors["rollout_logprobs"].view(np.uint32) >> 16
    half = tensors["trainer_logprobs"].astype(np.float16)
    return tensors | {"rollout_logprobs": bits.astype(np.uint16), "trainer_logprobs": half}


def arrow(tensors: dict[str, Array]) -> bytes:
    ends = tensors["cu_seqlens"]
    columns = {
        name: pa.array(np.split(tensor, ends[1:-1]), pa.list_(pa.from_numpy_dtype(tensor.dtype)))
        for name, tensor in tensors.items()
        if name not in ("cu_seqlens", "behavior_version")
    }
    if "behavior_version" in tensors:
        columns["behavior_version"] = pa.array(tensors["behavior_version"])
    table = pa.table(columns).replace_schema_metadata(dict(BF16))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def prime_rl() -> bytes:
    lines = []
    for line, length in enumerate((12, 5, 20)):
        tensors = full_step(30 + line, [length])
        record: dict[str, Any] = {
            "schema_version": 1,
            "step": 4,
            "export_step": 4,
            "inference_logprobs": tensors["rollout_logprobs"].tolist(),
            "loss_mask": tensors["mask"].astype(bool).tolist(),
        }
        names = ("trainer_logprobs", "token_ids", "position_ids", "advantages", "entropy")
        record |= {name: tensors[name].tolist() for name in names}
        record["trainer_logprobs"][1] = None
        lines.append(json.dumps(record))
    return "\n".join(lines).encode()


def as_json(rollout: Any, trainer: Any, **more: Any) -> bytes:
    columns = {"rollout_logprobs": rollout, "trainer_logprobs": trainer}
    return json.dumps({"metadata": BF16, **columns, **more}).encode()


def good_inputs() -> dict[str, bytes]:
    basic, pair = step(1, [8, 40, 17, 3]), ([[-0.5, -1.25], [-0.02]], [[-0.5, None], [-0.021]])
    fine = {**METADATA, "rollout_dtype": "fp32", "trainer_dtype": "fp32"}
    return {
        "basic.safetensors": safetensors(basic),
        "full.safetensors": safetensors(full_step(2, [64, 1, 33, 90, 12])),
        "long.safetensors": safetensors(full_step(3, [3000, 1500, 700, 2500] * 2)),
        "far.safetensors": safetensors(step(4, [50, 70], noise=2.0)),
        "equal.safetensors": safetensors(step(5, [20, 20], noise=0.0), fine),
        "odd.safetensors": safetensors(odd_values()),
        "padded.safetensors": safetensors(padded_step()),
        "narrow.safetensors": safetensors(narrow(step(6, [31, 9]))),
        "routes-u8.safetensors": safetensors(with_routes(step(7, [16, 5]), "u1")),
        "routes-i16.safetensors": safetensors(with_routes(full_step(8, [16, 5]), "i2"), METADATA),
        "routes-u16.safetensors": safetensors(with_routes(step(7, [16, 5]), "u2")),
        "token-ids.safetensors": safetensors(
            basic | {"rollout_token_ids": basic["token_ids"][::-1].copy()}
        ),
        "one-token.safetensors": safetensors(step(9, [1])),
        "empty.safetensors": safetensors(step(9, [0, 0])),
        "masked-out.safetensors": safetensors(
            step(10, [4, 4]) | {"mask": np.zeros(8, dtype=np.uint8)}, {"schema_version": "1"}
        ),
        "basic.arrows": arrow(basic),
        "full.arrows": arrow(full_step(2, [64, 1, 33, 90, 12])),
        "lists.json": as_json(*pair, mask=[[1, 1], [1]], behavior_version=[7, 5]),
        "flat.json": as_json([-0.1, float("nan"), -3], [-0.1, -1, -2.5], cu_seqlens=[0, 1, 3]),
        "rank_0.jsonl": prime_rl(),
    }


def bad_inputs() -> dict[str, bytes]:
    basic = step(1, [8, 40, 17, 3])
    whole, stream = safetensors(basic), arrow(basic)
    changed: dict[str, Tensors] = {
        "unknown-tensor": basic | {"rolout_logprobs": basic["rollout_logprobs"]},
        "wrong-dtype": basic | {"trainer_logprobs": basic["trainer_logprobs"].astype(np.float64)},
        "lengths": basic | {"trainer_logprobs": basic["trainer_logprobs"][:-1]},
        "offsets": basic | {"cu_seqlens": np.array([0, 50, 40, 68], dtype=np.int64)},
        "mask-value": basic | {"mask": np.full(68, 2, dtype=np.uint8)},
        "versions": basic | {"behavior_version": np.zeros(3, dtype=np.int32)},
        "no-trainer": {k: v for k, v in basic.items() if k != "trainer_logprobs"},
        "no-mask": {k: v for k, v in padded_step().items() if k != "mask"},
    }
    many = {f"name-{number}": "x" for number in range(70)}
    return {
        **{f"{name}.safetensors": safetensors(tensors) for name, tensors in changed.items()},
        "schema.safetensors": safetensors(basic, {"schema_version": "2"}),
        "metadata.safetensors": safetensors(basic, METADATA | many),
        "control.safetensors": safetensors(basic, METADATA | {"model": "a\x07b"}),
        "cut.safetensors": whole[:-40],
        "more.safetensors": whole + b"\0" * 8,
        "header.safetensors": struct.pack("<Q", 1 << 40) + whole[8:],
        "nothing.safetensors": b"",
        "cut.arrows": stream[: len(stream) // 2],
        "no-end.arrows": stream[:-8],
        "no-stream.arrows": b"ARROW1\0\0",
        "text.json": b"not JSON",
        "list.json": b"[]",
        "twice.json": b'{"metadata": {}, "metadata": {}}',
        "types.json": as_json([["a"]], [[0.5]]),
        "ragged.json": as_json([[-1, -2], [-3]], [[-1], [-2, -3]]),
        "huge.json": as_json([[-1e300]], [[-1.0]]),
        "unknown.json": as_json([[-1.0]], [[-1.0]], extra=[[1.0]]),
        "two-steps.jsonl": prime_rl() + b"\n" + prime_rl().replace(b'_step": 4', b'_step": 5'),
        "broken.jsonl": prime_rl()[:-20],
        "unknown.suffix": whole,
    }


def media_type(name: str) -> str:
    return {"arrows": ARROW, "json": JSON}.get(name.rpartition(".")[2], SAFETENSORS)
