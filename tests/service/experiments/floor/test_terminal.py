"""A floor in the terminal: no number is cut at 80 columns, and every exception has its reason."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from driftscope_probes.floor.report import DtypeNoise, FloorReport, PairFloor, Sigma
from driftscope_probes.floor.request import FloorRequest
from driftscope_probes.floor.store import StoredFloor, stored_floors
from driftscope_service.experiments.floor.terminal import print_floor, print_stored

SIGMAS = {"bf16": 0.080612345, "fp16": 0.0089712345, "fp32": 5.5312345e-6}


def sigma(value: float) -> Sigma:
    return Sigma(sigma=value, low=0.9 * value, high=1.1 * value, tokens=512, sequences=16)


def pair(rollout: str, trainer: str) -> PairFloor:
    value = max(SIGMAS[rollout], SIGMAS[trainer])
    return PairFloor(
        rollout_dtype=rollout,
        trainer_dtype=trainer,
        sigma=value,
        low=0.9 * value,
        high=1.1 * value,
        basis="same_side",
        reason="because.",
        same_side=sigma(value),
        reference=sigma(value),
        perturbation=sigma(value),
    )


REPORT = FloorReport(
    schema_version="1",
    kind="floor",
    created_at="2026-11-29T17:00:00+00:00",
    model={"name": "smollm2-135m", "fingerprint": "sha256:" + "ab" * 32},
    request=FloorRequest(model="smollm2-135m"),
    machine="AMD EPYC",
    sentence="Rounding alone moves the logits of smollm2-135m by sigma = 0.081 in bf16 nats.",
    pairs=tuple(pair(rollout, trainer) for rollout in SIGMAS for trainer in SIGMAS),
    dtypes=tuple(
        DtypeNoise(
            dtype=dtype,
            batch_shape=sigma(value),
            decoding=sigma(value),
            rollout_error=sigma(value),
            trainer_error=sigma(value),
            embedding=sigma(value),
            perturbation=sigma(value),
        )
        for dtype, value in SIGMAS.items()
    ),
    notes=["FP16 was scored on 8 of 16 sequences."],
    environment={},
    timing={"total_s": 90.0},
)


def shown(print_: object, *arguments: object) -> str:
    console = Console(file=StringIO(), width=80, no_color=True)
    print_(*arguments[:1], console, *arguments[1:])  # type: ignore[operator]
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_sentence_is_first_and_no_number_is_cut() -> None:
    text = shown(print_floor, REPORT, Path("data/floors"))
    assert text.startswith("Rounding alone moves the logits")
    assert "…" not in text
    for number in ("0.0806", "0.00897", "5.53e-6", "(4.98 – 6.08)e-6"):
        assert number in text
    assert "8 of 16 sequences" in text and "Stored in data/floors" in text


def test_stored_floors_are_grouped_by_model_and_origin() -> None:
    floors = stored_floors(REPORT)
    paired: list[StoredFloor] = [
        floor.model_copy(update={"measured_by": "paired", "low": None, "high": None})
        for floor in floors
    ]
    text = shown(print_stored, [*floors, *paired], Path("data/floors"))
    assert text.count("smollm2-135m on AMD EPYC, by driftscope floor") == 1
    assert text.count("by a paired probe") == 1
    assert "…" not in text and text.count("5.53e-6") == 2


def test_pairs_without_a_sigma_are_not_stored() -> None:
    silent = REPORT.pairs[0].model_copy(update={"sigma": 0.0})
    report = REPORT.model_copy(update={"pairs": (silent, *REPORT.pairs[1:])})
    assert len(stored_floors(report)) == 8
