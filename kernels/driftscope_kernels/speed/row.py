"""One measured case: what ran, how long, and against what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from driftscope_kernels.speed.paired import best_ratio, ratio

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
