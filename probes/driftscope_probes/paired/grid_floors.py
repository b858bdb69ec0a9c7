"""Floors that a paired probe leaves: those of its cells that rounding alone explains.

Rounding falls with the precision, a fault does not: a cell counts as healthy where a finer cell of
the same grid lies as far below it as its format promises. What a fault adds to both cells is then
a small part of the coarser one.

In: a PairedReport. Out: StoredFloor values. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from driftscope_probes.diagnosis.floor import ABOVE_FLOOR_UP_TO, prior_floor
from driftscope_probes.dtypes import DTYPES
from driftscope_probes.floor.store import SCHEMA_VERSION, StoredFloor, machine
from driftscope_probes.paired.report import Cell, PairedReport

#: The finer cell's sigma, at most, over this one's. FP32 lies 3,500 to 10,000 times below BF16 and
#: 500 to 1,300 times below FP16: with a hundredth of a cell in it, no fault is worth a word.
FP32_BELOW: Final = 0.01
#: FP16 lies 6 to 9 times below BF16; at a fifth, a fault makes up at most 2 % of BF16's variance.
FP16_BELOW: Final = 0.2


def grid_floors(report: PairedReport) -> tuple[StoredFloor, ...]:
    """None where the two sides do not mean the same thing, have other weights, draw at random or
    run other kernels than stock ones.
    """
    request = report.request
    if request.other_weights or report.dropout is not None:
        return ()
    stock = request.engine.kernels == request.trainer.kernels == "stock"
    sampling = request.sampling
    plain = sampling.temperature == 1.0 and sampling.top_p == 1.0 and sampling.top_k == 0
    if not stock or not plain:
        return ()
    return tuple(_floors(report))


def _floors(report: PairedReport) -> Iterator[StoredFloor]:
    sigmas = {
        (cell.engine_dtype, cell.trainer_dtype): cell.which_side.sigma
        for cell in report.grid
        if cell.which_side is not None
    }
    for cell in report.grid:
        key = (cell.engine_dtype, cell.trainer_dtype)
        # Only plain modes: a float32 head or autocast rounds elsewhere than the pair's names say.
        if set(key) <= set(DTYPES) and is_healthy(key, sigmas, report.model["name"]):
            yield _stored(report, cell, sigmas[key])


def is_healthy(key: tuple[str, str], sigmas: Mapping[tuple[str, str], float], model: str) -> bool:
    """FP32 against FP32 has nothing finer beside it: it is held against the prior."""
    sigma = sigmas.get(key, 0.0)
    if sigma == 0.0:
        return False
    if key == ("fp32", "fp32"):
        return sigma <= ABOVE_FLOOR_UP_TO * prior_floor(*key, model=model).sigma
    finest = sigmas.get(("fp32", "fp32"))
    if finest is not None:
        return finest <= FP32_BELOW * sigma
    return "bf16" in key and sigmas.get(("fp16", "fp16"), sigma) <= FP16_BELOW * sigma


def _stored(report: PairedReport, cell: Cell, sigma: float) -> StoredFloor:
    return StoredFloor(
        schema_version=SCHEMA_VERSION,
        model=report.model["name"],
        fingerprint=report.model["fingerprint"],
        rollout_dtype=cell.engine_dtype,
        trainer_dtype=cell.trainer_dtype,
        machine=machine(),
        sigma=sigma,
        low=None,
        high=None,
        basis="grid",
        tokens=int(cell.comparison["tokens"]),
        sequences=int(cell.comparison["sequences"]),
        measured_by="paired",
        created_at=report.created_at,
    )
