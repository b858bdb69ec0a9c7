"""How to read a grid: one sentence, its figures with the published ones, notes on settings.

In: the request and the comparison of every cell. Out: a Reading and notes. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from driftscope_probes.mismatch import Comparison, RatioInterval, Undefined, ratio_interval
from driftscope_probes.paired.parts import Dropout, Weights
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.paired.which_side import WhichSide
from driftscope_probes.record import Record
from driftscope_probes.sampling_notes import sampling_notes


@dataclass(frozen=True, slots=True)
class Published:
    text: str
    source: str


#: "about 8 times" is 2**3, the three more mantissa bits of FP16 (10 against BF16's 7); independent
#: measurements of that quotient: 6.4 to 8.2 (Qwen2.5 0.5B to 7B, batch 1 against batch 8).
FP16_ABS_DIFF_QUOTIENT = Published(
    text="about 8",
    source="Qi et al., Defeating the Training-Inference Mismatch via FP16 (arXiv 2510.26788)",
)
#: Offline sequence KL 7.64 against 0.32 gives 24; per-token KL in training 65 to 120; theory 8**2.
FP16_KL_QUOTIENT = Published(
    text="24 to 64 (offline to theory), up to 120 in training",
    source="Qi et al., arXiv 2510.26788, figures 3 and 5",
)


#: Percentile intervals from resampling are too narrow below this many sequences.
FEW_SEQUENCES = 20


def semantic_notes(request: PairedRequest) -> list[str]:
    """Plain sentences; none where both sides mean the same thing."""
    sampling, engine = request.sampling, request.engine
    notes = sampling_notes(
        temperature=sampling.temperature,
        truncated=sampling.top_p < 1.0 or sampling.top_k > 0,
        processed=engine.logprobs_mode == "processed_logprobs",
    )
    sequences = request.prompts if isinstance(request.prompts, int) else len(request.prompts)
    if request.resamples and sequences < FEW_SEQUENCES:
        notes.append(
            f"Intervals come from resampling {sequences} sequences; below about {FEW_SEQUENCES} "
            "they are too narrow. Give more prompts for figures to rely on."
        )
    if engine.kind == "vllm-server":
        notes.append("The server's dtype and logprobs mode are as declared, not as measured.")
    return notes


Grid = Mapping[tuple[str, str], Comparison]  # (engine dtype, trainer mode)


class Figure(Record):
    """A quotient of two cells' means, with its 95 % interval from resampling sequences."""

    name: str
    value: float | None
    interval: tuple[float, float] | None
    published: str
    source: str
    undefined: str | None = None  # why there is no value or interval


class Reading(Record):
    sentence: str
    figures: tuple[Figure, ...]


class Cell(Record):
    """One engine dtype against one trainer mode."""

    engine_dtype: str
    trainer_dtype: str
    comparison: dict[str, Any]
    diagnosis: dict[str, Any] | None
    profiles: dict[str, Any]
    rollout: dict[str, Any]  # fields of TraceMeta, like `trainer`
    trainer: dict[str, Any]
    pair_file: str | None
    which_side: WhichSide | None = None  # None in reports of before it was measured


class Gradient(Record):
    engine_dtype: str
    trainer_dtype: str
    loss: float | None
    norm: float | None
    norm_relative_difference: float | None
    nonfinite_values: int
    loss_scale: float


class PairedReport(Record):
    schema_version: str
    kind: Literal["paired"]
    created_at: str
    model: dict[str, Any]
    request: PairedRequest
    reading: Reading
    grid: tuple[Cell, ...]
    headroom: dict[str, Any] | None
    gradients: tuple[Gradient, ...] | None
    dropout: Dropout | None = None  # None: the trainer draws nothing at random
    weights: Weights | None = None  # None: both sides have the same weights
    notes: list[str]
    environment: dict[str, Any]
    lint: dict[str, Any] | None = None  # a LintReport; None: of before there was one
    timing: dict[str, float | int]


def read_grid(grid: Grid, *, resamples: int) -> Reading:
    """FP16 against BF16 if both matched cells exist; else the closest and furthest cell."""
    bf16, fp16 = grid.get(("bf16", "bf16")), grid.get(("fp16", "fp16"))
    if bf16 is None or fp16 is None:
        return Reading(sentence=_extremes(grid), figures=())
    if _mean(fp16) in (0.0, None) or _mean(bf16) is None:
        return Reading(sentence=_extremes(grid), figures=())
    abs_diff = _figure("abs_diff_mean", bf16, fp16, resamples, FP16_ABS_DIFF_QUOTIENT)
    kl = _figure("kl_k3", bf16, fp16, resamples, FP16_KL_QUOTIENT)
    sentence = (
        f"FP16 on both sides is {_times(abs_diff)} closer than BF16 in mean |Δ| "
        f"(published: {FP16_ABS_DIFF_QUOTIENT.text}) and {_times(kl)} in k3 "
        f"(published: {FP16_KL_QUOTIENT.text})."
    )
    return Reading(sentence=sentence, figures=(abs_diff, kl))


def _figure(
    name: str, bf16: Comparison, fp16: Comparison, resamples: int, published: Published
) -> Figure:
    quotient: RatioInterval | Undefined = Undefined("intervals were switched off")
    if resamples:
        quotient = ratio_interval(
            bf16.sequence_mean(name), fp16.sequence_mean(name), resamples=resamples
        )
    above, below = bf16.value(name), fp16.value(name)
    value, interval, reason = None, None, None
    if isinstance(quotient, RatioInterval):
        value, interval = quotient.ratio, (quotient.low, quotient.high)
    else:
        reason = quotient.reason
        if not isinstance(above, Undefined) and not isinstance(below, Undefined) and below:
            value = above / below
    return Figure(
        name=f"{name} bf16/fp16",
        value=value,
        interval=interval,
        published=published.text,
        source=published.source,
        undefined=reason,
    )


def _times(figure: Figure) -> str:
    if figure.value is None:
        return "not measurably"
    if figure.interval is None:
        return f"{_two_digits(figure.value)} times"
    low, high = figure.interval
    return f"{_two_digits(figure.value)} ({_two_digits(low)} to {_two_digits(high)}) times"


def _two_digits(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _mean(cell: Comparison) -> float | int | None:
    value = cell.value("abs_diff_mean")
    return None if isinstance(value, Undefined) else value


def _extremes(grid: Grid) -> str:
    means = {key: mean for key, cell in grid.items() if (mean := _mean(cell)) is not None}
    if not means:
        return "No cell of the grid has a defined mean |Δ|."
    closest, furthest = min(means, key=lambda key: means[key]), max(means, key=lambda k: means[k])
    if means[furthest] == 0.0:
        return "Engine and trainer agree bit for bit in every cell."
    if closest == furthest:
        return f"{_cell(closest)}: mean |Δ| {means[closest]:.3g} nats."
    return (
        f"The closest cell is {_cell(closest)} with mean |Δ| {means[closest]:.3g} nats, the "
        f"furthest {_cell(furthest)} with {means[furthest]:.3g} nats."
    )


def _cell(key: tuple[str, str]) -> str:
    return f"{key[0]} engine against {key[1]} trainer"
