"""The instructions of a simulated device, each read as a path of the report."""

from __future__ import annotations

from driftscope_kernels.compare_ops.trees import UnreadableTreeError
from driftscope_probes.fingerprint.reading import Reading, read_unit
from driftscope_probes.fingerprint.report import PathReading, shortened
from driftscope_probes.fingerprint.request import PREFIX
from driftscope_probes.fingerprint.simulated import Instruction, instructions
from driftscope_probes.progress import Progress, ProgressSink


def device_paths(device: str, progress: ProgressSink) -> list[PathReading]:
    """Raises RequestError."""
    found = instructions(device)
    paths = []
    for number, instruction in enumerate(found):
        progress(Progress("reading instructions", number / len(found), instruction.name))
        paths.append(read_instruction(instruction))
    return paths


def read_instruction(instruction: Instruction) -> PathReading:
    try:
        return _path(instruction, read_unit(instruction.unit), "")
    except UnreadableTreeError as error:
        return _path(instruction, None, str(error))


def _path(instruction: Instruction, read: Reading | None, why: str) -> PathReading:
    a, b = instruction.a.name, instruction.b.name
    order = None if read is None else read.order
    aligned = None if read is None else read.alignment
    bits = None if read is None else read.result_bits
    return PathReading(
        op=instruction.family,
        dtype=a if a == b else f"{a} × {b}",
        result=instruction.result.name,
        path=f"{PREFIX}{instruction.device} {instruction.name}",
        shape=instruction.shape,
        threads=1,
        tree=None if order is None else shortened(order.tree.text),
        tree_hash=None if order is None else order.tree.hash,
        order=None if order is None else order.tree.summary,
        accumulator_bits=None if bits is None else 1 + instruction.result.exponent_bits + bits,
        sum_fraction_bits=bits,
        rounding=None if read is None else read.rounding,
        fma=None if read is None else read.fused,
        subnormals=None if read is None else read.subnormals,
        infinities=None if read is None else read.infinities,
        fraction_bits=None if aligned is None else aligned.bits,
        alignment=None if aligned is None else aligned.rounding,
        products_before_rounding=None if order is None else order.at_once,
        products_per_step=None if order is None else order.group,
        bits=None,
        why=why,
    )
