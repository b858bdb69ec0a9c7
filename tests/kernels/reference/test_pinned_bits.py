"""The bits of every op on fixed inputs. They change with the contract and with nothing else.

A change here breaks the promise that results of two versions can be compared bit for bit: it
belongs in the changelog. `python tests/kernels/reference/test_pinned_bits.py` prints the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import numpy as np
import pytest
import torch
from torch import Tensor

from driftscope_kernels.registry import Kernel, kernels

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ROWS, K, N, HEADS, D = 5, 72, 600, 3, 8
WIDTH = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
PARAMS = {"eps": 1e-6, "dim": -1}

PINNED = {
    "linear": "8b0fecf71d2699b7",
    "linear-tp8": "0390a43f22c3cc22",
    "bmm": "fba92a57899a2083",
    "rms_norm": "edf5f3e610c74968",
    "add_rms_norm": "e08f91c9ea15a033",
    "softmax": "6072f8524bd6d3f1",
    "log_softmax": "137bd14431e42a1a",
    "logsumexp": "89d47f4eaf6caa65",
    "sum": "80d01486c43c836e",
    "mean": "d031a2bbd1936071",
    "swiglu": "d377c6525fdea4a1",
    "rotary": "18aefb5163aa214f",
    "token_logprob": "6e244d08a1569551",
    "attention": "c4013d55974e54c7",
    "attention_prefill": "cd732096d0cc924a",
}


def values(seed: int, dtype: torch.dtype, *shape: int) -> Tensor:
    """Between −4 and 4 in steps of 2^-20, from integers, so that no library's normal matters."""
    integers = np.random.Generator(np.random.PCG64(seed)).integers(-(2**22), 2**22, shape)
    return torch.from_numpy(integers.astype(np.float32) * np.float32(2.0**-20)).to(dtype)


def inputs(op: str, dtype: torch.dtype) -> Mapping[str, Tensor]:
    if op == "bmm":
        return {"x": values(0, dtype, ROWS, 3, K), "weight": values(1, dtype, ROWS, K, 7)}
    if op == "rotary":
        q, k = values(0, dtype, ROWS, HEADS, D), values(1, dtype, ROWS, 1, D)
        cos, sin = (values(seed, torch.float32, ROWS, D // 2) for seed in (2, 3))
        return {"x": q, "key": k, "cos": cos, "sin": sin}
    if op.startswith("attention"):
        query = values(0, dtype, ROWS, 1 if op == "attention" else 70, HEADS * 2, D)
        key, value = (values(seed, dtype, ROWS, 70, HEADS, D) for seed in (1, 2))
        return {"x": query, "key": key, "value": value}
    weight = (N, K) if op in ("linear", "token_logprob") else (K,)
    return {
        "x": values(0, dtype, ROWS, K),
        "residual": values(1, dtype, ROWS, K),
        "up": values(1, dtype, ROWS, K),
        "weight": values(2, dtype, *weight),
        "targets": torch.tensor([0, 511, 512, 599, 7]),
    }


def pin(kernel: Kernel) -> str:
    """Name in PINNED: the op, and the order of its sum where there are two."""
    return kernel.op + ("-tp8" if kernel.implementation.endswith("-tp8") else "")


def digest(kernel: Kernel) -> str:
    """Of the results in the three dtypes, little endian."""
    hashed = sha256()
    for dtype in DTYPES:
        y = kernel.run(inputs(kernel.op, dtype), PARAMS)
        hashed.update(y.contiguous().view(WIDTH[y.dtype]).numpy().tobytes())
    return hashed.hexdigest()[:16]


# Gradients follow from the same contracts; tests/kernels/autograd has them.
OURS = {kernel.name: kernel for kernel in kernels("driftscope") if ".grad" not in kernel.op}


def test_every_op_is_pinned() -> None:
    assert {pin(kernel) for kernel in OURS.values()} == set(PINNED)


@pytest.mark.parametrize("name", OURS)
def test_bits_are_what_they_were(name: str) -> None:
    assert digest(OURS[name]) == PINNED[pin(OURS[name])]


if __name__ == "__main__":
    for one in OURS.values():
        if one.implementation.startswith("reference"):
            print(f'    "{pin(one)}": "{digest(one)}",')
