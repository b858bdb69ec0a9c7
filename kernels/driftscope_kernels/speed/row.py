"""One measured case: ways to do the same thing timed in turns, and the row that says how long."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from torch import Tensor

# A way runs this long per round at least: well above the clock's step and a scheduler's slice.
ROUND_SECONDS = 0.004

Way = Callable[[], Tensor]


def alternate(ways: Mapping[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds per call of each way, one figure per round; the first call of each is not counted."""
    repeats = {}
    for name, way in ways.items():
        way()
        begin = time.perf_counter()
        way()
        repeats[name] = max(1, int(ROUND_SECONDS / (time.perf_counter() - begin)))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                way()
            times[name].append((time.perf_counter() - begin) / repeats[name])
    return times


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Median over rounds of theirs to ours; above 1: ours is faster."""
    return median(a / b for a, b in zip(theirs, ours, strict=True))


def best_ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The fastest round of each: what remains when a loaded machine left both alone once."""
    return min(theirs) / min(ours)


OURS, TORCH, VLLM = "ours", "torch", "vllm"


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """Seconds are medians over rounds; a ratio above 1 says that ours is faster."""

    op: str
    dtype: str
    k: int  # length of what is summed over
    n: int  # columns of the result; 1 where a row becomes one number
    m: int  # rows
    packed: bool  # linear: the weight was packed before, as vLLM packs its own
    ours_s: float
    torch_s: float
    speed_ratio: float  # torch / ours, median over rounds
    best_ratio: float  # torch / ours, fastest rounds
    target: float | None  # the ratio we set out to reach; None: none was set
    vllm_s: float | None = None
    vllm_ratio: float | None = None
    vllm_best_ratio: float | None = None
    vllm_target: float | None = None

    @property
    def reached(self) -> bool:
        """Every target that was set, by the median."""
        pairs = ((self.speed_ratio, self.target), (self.vllm_ratio, self.vllm_target))
        return all(a >= b for a, b in pairs if a is not None and b is not None)


def speed_row(
    op: str,
    dtype: str,
    shape: tuple[int, int, int],  # k, n, m
    times: Mapping[str, Sequence[float]],
    target: float | None,
    *,
    packed: bool = False,
    vllm_target: float | None = None,
) -> SpeedRow:
    """From the times of "ours", "torch" and, where it was there, "vllm"."""
    k, n, m = shape
    ours, torch, vllm = times[OURS], times[TORCH], times.get(VLLM)
    return SpeedRow(
        op=op,
        dtype=dtype,
        k=k,
        n=n,
        m=m,
        packed=packed,
        ours_s=median(ours),
        torch_s=median(torch),
        speed_ratio=ratio(torch, ours),
        best_ratio=best_ratio(torch, ours),
        target=target,
        vllm_s=None if vllm is None else median(vllm),
        vllm_ratio=None if vllm is None else ratio(vllm, ours),
        vllm_best_ratio=None if vllm is None else best_ratio(vllm, ours),
        vllm_target=None if vllm is None else vllm_target,
    )
