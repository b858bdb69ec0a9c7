"""Simulated devices, read as black boxes, against the tables of the simulator itself.

Every architecture and input type; the parameters are what it built each instruction with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import ValidationError

from driftscope_probes.errors import RequestError
from driftscope_probes.fingerprint import simulated
from driftscope_probes.fingerprint.device_paths import read_instruction
from driftscope_probes.fingerprint.reading import Reading, read_unit
from driftscope_probes.fingerprint.request import ARCHITECTURES, FingerprintRequest
from driftscope_probes.fingerprint.simulated import Instruction, instructions

#: The bits after the leading one, and the rounding, that the simulator names.
ROUNDINGS = {
    "RZ-FP32": (23, "toward zero"),
    "RZ-E8M13": (13, "toward zero"),
    "RNE-FP32": (23, "nearest even"),
    "RNE-FP16": (10, "nearest even"),
}
FMA_BITS = {"fp32": 23, "fp64": 52}


@dataclass(frozen=True)
class Stated:
    """What the simulator's tables say of an instruction."""

    group: int
    at_once: int
    fraction_bits: int | None
    sum_bits: int
    rounding: str
    exact: bool = False


def stated(instruction: Instruction) -> Stated:
    op, k = instruction.operation.arithmetic_op, instruction.operation.k
    kind = type(op).__name__
    if kind == "MMA_FMA":
        return Stated(1, 1, None, FMA_BITS[instruction.a.name], "nearest even")
    if kind == "MMA_FTZ_MUL_ADD":
        return Stated(op.P, 2, None, 23, "nearest even")
    group = min(op.L_max, k)
    if kind == "MMA_E_FDPA":
        return Stated(group, group, None, 23, "nearest even", exact=True)
    return Stated(group, group, op.F, *ROUNDINGS[op.rho])


def found(read: Reading) -> Stated:
    return Stated(
        read.order.group,
        read.order.at_once,
        None if read.alignment is None else read.alignment.bits,
        read.result_bits,
        read.rounding,
        read.order.exact,
    )


@pytest.mark.parametrize("device", ARCHITECTURES)
def test_the_tables_are_found(device: str) -> None:
    asked = instructions(f"simulated:{device}")
    wrong = {}
    for each in asked:
        read = found(read_unit(each.unit))
        if read != stated(each):
            wrong[each.name] = (read, stated(each))
    assert asked
    assert not wrong


def test_hopper_sums_fp8_in_22_bits() -> None:
    (instruction,) = (
        each for each in instructions("simulated:hopper") if each.name.endswith("f32.e4m3.e4m3")
    )
    path = read_instruction(instruction)
    assert (path.op, path.dtype, path.fraction_bits) == ("wgmma", "e4m3", 13)
    assert (path.accumulator_bits, path.rounding, path.alignment) == (22, *["toward zero"] * 2)
    assert path.products_before_rounding == 32


def hopper(name: str) -> Instruction:
    (found_,) = (
        each
        for each in instructions("simulated:hopper")
        if each.family == "wgmma" and each.name.endswith(name)
    )
    return found_


#: Of the simulator's own parameters: a field, and what is planted there.
PLANTED: dict[str, tuple[str, dict[str, Any]]] = {
    "one bit less": ("f32.e4m3.e4m3", {"F": 12, "rho": "RZ-E8M13"}),
    "one bit less of many": ("f32.f16.f16", {"F": 24}),
    "one bit more": ("f32.bf16.bf16", {"F": 26}),
    "nearest instead of toward zero": ("f32.bf16.bf16", {"rho": "RNE-FP32"}),
    "all of fp32 where 13 bits are": ("f32.e4m3.e4m3", {"rho": "RZ-FP32"}),
    "half the group": ("f32.e4m3.e4m3", {"L_max": 16}),
    "half the group of fp16": ("f16.f16.f16", {"L_max": 8}),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_change_is_found(fault: str) -> None:
    name, changes = PLANTED[fault]
    instruction = hopper(name)
    right = found(read_unit(instruction.unit))
    operation = instruction.operation.arithmetic_op
    for parameter, value in changes.items():
        assert hasattr(operation, parameter)
        setattr(operation, parameter, value)
    planted = found(read_unit(instruction.unit))
    assert planted != right
    if fault != "all of fp32 where 13 bits are":  # 13 aligned bits and carries fill 18 of the 23
        assert planted == stated(instruction)


def planted_in(operation: Any) -> Iterator[tuple[str, Any]]:
    """A bit less, the other rounding, half the group; where the instruction has such a thing."""
    if hasattr(operation, "F"):
        yield "F", operation.F - 1
        other = {"RZ-FP32": "RNE-FP32", "RZ-E8M13": "RNE-FP16", "RNE-FP32": "RZ-FP32"}
        if operation.rho in other:
            yield "rho", other[operation.rho]
    if getattr(operation, "L_max", 0) > 2:
        yield "L_max", operation.L_max // 2


@pytest.mark.parametrize("device", ["turing", "hopper", "cdna1"])
def test_every_instruction_shows_what_is_planted_in_it(device: str) -> None:
    missed = []
    for instruction in instructions(f"simulated:{device}"):
        if device == "hopper" and instruction.family == "mma":  # as wgmma, and as on Turing
            continue
        operation, k = instruction.operation.arithmetic_op, instruction.operation.k
        right = found(read_unit(instruction.unit))
        for parameter, value in list(planted_in(operation)):
            before = getattr(operation, parameter)
            setattr(operation, parameter, value)
            # A group beyond K is not seen: nor does it do anything.
            if found(read_unit(instruction.unit)) == right and not (
                parameter == "L_max" and value >= k
            ):
                missed.append((instruction.name, parameter))
            setattr(operation, parameter, before)
    assert not missed


def test_a_device_that_nobody_simulates() -> None:
    with pytest.raises(ValidationError, match="simulated:hopper"):
        FingerprintRequest(device="simulated:pentium")


def test_no_simulator_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "find_spec", lambda _: None)
    with pytest.raises(RequestError, match="is not installed"):
        instructions("simulated:hopper")
