"""Matrix units of GPUs that are not at hand: mmasim computes what they would, bit by bit.

Of the simulator only the names of its instructions are read, and what comes out of them. In: the
name of a device. Out: its units.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from driftscope_probes.errors import RequestError
from driftscope_probes.fingerprint.formats import FORMATS, Format
from driftscope_probes.fingerprint.request import ARCHITECTURES, PREFIX
from driftscope_probes.fingerprint.unit import Unit, Values

PACKAGE: Final = "mmasim"
#: Of the simulator's operand types: ours, and how torch holds them (fp6 and fp4 as bytes).
TYPES: Final[Mapping[str, str]] = {
    "f64": "fp64",
    "f32": "fp32",
    "tf32": "tf32",
    "xf32": "tf32",
    "bf16": "bf16",
    "f16": "fp16",
    "e5m2": "e5m2",
    "e4m3": "e4m3",
    "bf8": "e5m2fnuz",
    "fp8": "e4m3fnuz",
    "e3m2": "e3m2",
    "e2m3": "e2m3",
    "e2m1": "e2m1",
}
#: Bits of a byte in which fp6 and fp4 lie begin this far above the lowest.
_BYTE_BITS: Final = 6


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a device, with the largest K and the smallest M and N of its types."""

    device: str  # "hopper"
    family: str  # "mma", "wgmma", "tcgen05.mma", "mfma"
    name: str  # as the instruction set spells it
    a: Format
    b: Format
    c: Format
    result: Format
    operation: Any  # of the simulator

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.operation.m, self.operation.n, self.operation.k

    @property
    def unit(self) -> Unit:
        operation = self.operation
        return Unit(operation.k, self.a, self.b, self.c, self.result, self._run)

    def _run(self, a: Values, b: Values, c: Values) -> Values:
        operation = self.operation
        packed = getattr(operation, "packing", 1) == 2
        args = [_encoded(values, form, packed) for values, form in ((a, self.a), (b, self.b))]
        args.append(torch.from_numpy(c).to(operation.c_type))
        if hasattr(operation, "s_type"):
            # Scales of one: products are what their factors say.
            scale = torch.ones(len(c), operation.k // operation.block_size)
            args += [scale.to(operation.s_type)] * 2
        found: NDArray[np.float64] = operation.dpa(*args).double().numpy()
        return found


def instructions(device: str) -> tuple[Instruction, ...]:
    """Of "simulated:NAME". Raises RequestError where mmasim is missing or cannot be built."""
    name = device.removeprefix(PREFIX)
    if find_spec(PACKAGE) is None:
        raise RequestError(
            f"{device} needs the package {PACKAGE}, which is not installed.",
            remedy="pip install 'driftscope[simulated]'",
        )
    families = _amd if name.startswith("cdna") else _nvidia
    return tuple(families(name))


def _loaded(module: str) -> Any:
    try:
        return import_module(f"{PACKAGE}.{module}")
    except (OSError, RuntimeError, ImportError) as error:
        raise RequestError(
            f"{PACKAGE} cannot be imported: {str(error).splitlines()[0]}",
            remedy="it builds a small C++ file when it is first imported: install g++ and ninja.",
        ) from error


def _nvidia(device: str) -> Iterator[Instruction]:
    sim = _loaded("nv_ptx")
    for family, kind, table in (
        ("mma", "MMA", _loaded("nv_ptx.isa_mma").mma_shape_and_type),
        ("mma", "MMABlockScale", _loaded("nv_ptx.isa_mma").mma_block_scale_shape_and_type),
        ("wgmma", "WGMMA", _loaded("nv_ptx.isa_wgmma").wgmma_shape_and_type),
        ("tcgen05.mma", "TCGen05MMA", _loaded("nv_ptx.isa_tcgen05mma").tcgen05mma_shape_and_type),
        (
            *("tcgen05.mma", "TCGen05MMABlockScale"),
            _loaded("nv_ptx.isa_tcgen05mma").tcgen05mma_block_scale_shape_and_type,
        ),
    ):
        architecture = ARCHITECTURES[device]
        for name in _smallest_shapes(table.get(architecture, ())):
            types = [TYPES[word] for word in name.split(".") if word in TYPES]
            yield _instruction(device, family, name, types, getattr(sim, kind)(architecture, name))


def _amd(device: str) -> Iterator[Instruction]:
    sim, table = _loaded("amd"), _loaded("amd.isa_mfma").arch_mfma_suffix
    architecture = ARCHITECTURES[device]
    for name in table[architecture]:
        result, rest = name.split("_", 1)
        words = re.findall(r"xf32|bf16|bf8|fp8|f64|f32|f16", rest)
        types = [TYPES[word] for word in (result, words[0], words[-1])]
        yield _instruction(device, "mfma", name, types, sim.MFMA(architecture, name))


def _instruction(
    device: str, family: str, name: str, types: list[str], operation: Any
) -> Instruction:
    result, a, b = (FORMATS[each] for each in types[:3])
    # Where c is spelled, it is the fourth; elsewhere it is as the result.
    c = FORMATS[types[3]] if len(types) > 3 else result
    return Instruction(device, family, name, a, b, c, result, operation)


def _smallest_shapes(names: Any) -> Iterator[str]:
    """Of the shapes that differ in M and N alone, which no sum depends on, the first."""
    seen: set[str] = set()
    for name in names:
        key = re.sub(r"m\d+n\d+k", "k", name)
        # The instructions of mma are few, and an M of 8 is Volta's way on Turing.
        key = name if re.match(r"m(8|16)n8k", name) else key
        if key not in seen:
            seen.add(key)
            yield name


def _encoded(values: Values, form: Format, packed: bool) -> Tensor:
    """As the simulator takes them."""
    dtype = _torch_dtypes().get(form.name)
    if dtype is not None:
        return torch.from_numpy(values).to(dtype)
    numbers, bits = _codes(form)
    codes = bits[np.searchsorted(numbers, values)]
    if packed:
        return torch.from_numpy(codes[:, ::2] << 4 | codes[:, 1::2])
    return torch.from_numpy(codes << (_BYTE_BITS - form.bits))


@cache
def _torch_dtypes() -> Mapping[str, torch.dtype]:
    return {
        "fp64": torch.float64,
        "fp32": torch.float32,
        "tf32": torch.float32,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "e5m2": torch.float8_e5m2,
        "e4m3": torch.float8_e4m3fn,
        "e5m2fnuz": torch.float8_e5m2fnuz,
        "e4m3fnuz": torch.float8_e4m3fnuz,
    }


@cache
def _codes(form: Format) -> tuple[Values, NDArray[np.uint8]]:
    """The numbers of a format without infinities in ascending order, and the bits of each."""
    found: dict[float, int] = {}
    ones = 2**form.fraction_bits
    for code in range(2 ** (form.bits - 1)):
        exponent, fraction = divmod(code, ones)
        significand = fraction + (ones if exponent else 0)
        value = significand * 2.0 ** (form.smallest + max(exponent, 1) - 1)
        found[-value] = code | 2 ** (form.bits - 1)
        found[value] = code  # of both zeros the positive one
    numbers = sorted(found)
    return np.array(numbers), np.array([found[each] for each in numbers], np.uint8)
