"""The report of a floor, and how one estimate becomes the floor of a dtype pair.

In: the scores of every way. Out: typed values. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.floor import ABOVE_FLOOR_UP_TO
from driftscope_probes.dtypes import Dtype
from driftscope_probes.floor.estimates import Estimate, estimate, joined
from driftscope_probes.floor.request import FloorRequest
from driftscope_probes.floor.ways import ALONE, BATCHED, DECODED, EMBEDDING, STORED, way_name
from driftscope_probes.record import Record

REFERENCE: Final[Dtype] = "fp32"
#: Where decoding and forward differ by less than this fraction of what their errors against FP32
#: allow, the two paths run the same kernels here and share most of their error. Measured on
#: SmolLM2: 0.80 in bf16, 0.94 in fp16.
SHARED_ERROR = 0.5
Basis = Literal["same_side", "reference", "perturbation"]
#: What the floor of a pair rests on, as a sentence goes on after "sigma is that of ";
#: "grid" only in floors that a paired probe left.
BASES: Final[Mapping[str, str]] = {
    "same_side": "decoding with a KV cache against a training-mode forward over the same tokens",
    "reference": "both sides' errors against the FP32 reference, taken as independent",
    "perturbation": "one rounding put into the FP32 model wherever the dtype stores a tensor",
    "grid": "a paired probe's own cell, whose difference falls with precision as rounding does",
}


class Sigma(Record):
    """Nats on the logits."""

    sigma: float
    low: float | None  # of the 95 % interval over sequences
    high: float | None
    tokens: int
    sequences: int


class DtypeNoise(Record):
    """One dtype by itself: what it adds to the FP32 model, and how it varies on one side."""

    dtype: str
    batch_shape: Sigma  # forward of a sequence alone against in a batch
    decoding: Sigma  # decoding with a KV cache against a forward
    rollout_error: Sigma  # decoding against the FP32 reference forward
    trainer_error: Sigma  # forward against the FP32 reference forward
    embedding: Sigma  # FP32 model, input embeddings perturbed by one rounding
    perturbation: Sigma  # FP32 model, every stored tensor perturbed by one rounding


class PairFloor(Record):
    """One rollout dtype against one trainer dtype."""

    rollout_dtype: str
    trainer_dtype: str
    sigma: float  # the floor
    low: float | None
    high: float | None
    basis: str  # a Basis: which of the three below is the floor
    reason: str  # why that one, a sentence
    same_side: Sigma
    reference: Sigma
    perturbation: Sigma


class FloorReport(Record):
    schema_version: str
    kind: Literal["floor"]
    created_at: str
    model: dict[str, Any]
    request: FloorRequest
    machine: str
    sentence: str
    pairs: tuple[PairFloor, ...]
    dtypes: tuple[DtypeNoise, ...]
    notes: list[str]
    environment: dict[str, Any]
    lint: dict[str, Any] | None = None  # a LintReport; None: of before there was one
    timing: dict[str, float]


class Scores:
    """Log-probabilities of the same tokens by way; NaN where a way left a token out."""

    def __init__(
        self, ways: Mapping[str, NDArray[np.float32]], cu_seqlens: NDArray[np.int64]
    ) -> None:
        self._ways = {name: values.astype(np.float64) for name, values in ways.items()}
        self._cu_seqlens = cu_seqlens

    def between(self, rollout: tuple[str, Dtype], trainer: tuple[str, Dtype]) -> Estimate:
        """Trainer's way minus rollout's."""
        first, second = self._ways[way_name(*rollout)], self._ways[way_name(*trainer)]
        found = estimate(second - first, first, self._cu_seqlens)
        return Estimate(0.0, None, 0, 0) if found is None else found

    def error(self, way: str, dtype: Dtype) -> Estimate:
        return self.between((ALONE, REFERENCE), (way, dtype))


def dtype_noise(scores: Scores, dtype: Dtype) -> DtypeNoise:
    return DtypeNoise(
        dtype=dtype,
        batch_shape=_sigma(scores.between((BATCHED, dtype), (ALONE, dtype))),
        decoding=_sigma(scores.between((DECODED, dtype), (ALONE, dtype))),
        rollout_error=_sigma(scores.error(DECODED, dtype)),
        trainer_error=_sigma(scores.error(ALONE, dtype)),
        embedding=_sigma(scores.error(EMBEDDING, dtype)),
        perturbation=_sigma(scores.error(STORED, dtype)),
    )


def pair_floor(scores: Scores, rollout: Dtype, trainer: Dtype) -> PairFloor:
    same_side = scores.between((DECODED, rollout), (ALONE, trainer))
    reference = joined(scores.error(DECODED, rollout), scores.error(ALONE, trainer))
    perturbation = joined(scores.error(STORED, rollout), scores.error(STORED, trainer))
    basis, reason = chosen(same_side, reference, perturbation, exact=rollout == trainer == "fp32")
    floor = {"same_side": same_side, "reference": reference, "perturbation": perturbation}[basis]
    low, high = floor.interval or (None, None)
    return PairFloor(
        rollout_dtype=rollout,
        trainer_dtype=trainer,
        sigma=floor.sigma,
        low=low,
        high=high,
        basis=basis,
        reason=reason,
        same_side=_sigma(same_side),
        reference=_sigma(reference),
        perturbation=_sigma(perturbation),
    )


def chosen(
    same_side: Estimate, reference: Estimate, perturbation: Estimate, *, exact: bool
) -> tuple[Basis, str]:
    """Which estimate is the floor, and why.

    `exact`: both dtypes are FP32. Its rounding lies in the order of summation, which putting in one
    rounding per stored tensor leaves out, and the reference is one of the two sides.
    """
    measured: Basis = "same_side"
    reason = "the engine's way of computing against the trainer's, on this machine."
    if same_side.sigma < SHARED_ERROR * reference.sigma:
        measured = "reference"
        reason = (
            "decoding and forward share most of their error on this machine, which two "
            "implementations do not: each side's error against FP32 counts in full."
        )
    value = max(same_side.sigma, reference.sigma) if measured == "reference" else same_side.sigma
    if value == 0.0:
        return "perturbation", "decoding and forward give the same bits here: nothing to measure."
    if not exact and value > ABOVE_FLOOR_UP_TO * perturbation.sigma:
        return "perturbation", (
            f"what was measured here is {value / perturbation.sigma:.1f} times what rounding puts "
            "in: more than rounding is at work on this machine, and must not pass as its floor."
        )
    return measured, reason


def floor_sentence(model: str, pairs: tuple[PairFloor, ...]) -> str:
    """The matched pairs, or all where none is."""
    shown = [pair for pair in pairs if pair.rollout_dtype == pair.trainer_dtype] or list(pairs)
    parts = [
        f"{pair.sigma:.2g} in {pair.rollout_dtype}"
        + ("" if pair.rollout_dtype == pair.trainer_dtype else f" against {pair.trainer_dtype}")
        for pair in shown
    ]
    return f"Rounding alone moves the logits of {model} by sigma = {', '.join(parts)} nats."


def _sigma(found: Estimate) -> Sigma:
    low, high = found.interval or (None, None)
    return Sigma(
        sigma=found.sigma, low=low, high=high, tokens=found.tokens, sequences=found.sequences
    )
