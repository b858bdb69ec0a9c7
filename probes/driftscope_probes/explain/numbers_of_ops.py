"""Numbers that an op computes with (epsilon, base, scale, window, soft cap …), side against side.

In: parameters of one site on both sides, for all sites. Out: one check per number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from math import isclose
from typing import Any, Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import (
    EmbeddingParameters,
    Parameters,
    RotaryParameters,
)
from driftscope_probes.explain.report import Check
from driftscope_probes.explain.sites import KIND_LABELS, Site

#: Which implementation ran is a fact of a side, not a number that has to agree.
_NOT_COMPARED: Final = frozenset({"kernel"})
#: Both sides take powers and roots in double precision, perhaps in another order.
_RELATIVE: Final = 1e-9
#: Frequencies are powers in float32: two libraries are a few steps of 1.2e-7 apart, and one that
#: had to be read from a table of 16-bit cosines is good to 1e-5 (see rotary_tables).
_FREQUENCIES: Final = 2e-5
_NAMED_SITES: Final = 3
#: Frequencies of one base are within this of its powers; scaled ones (YaRN, Llama 3) are halves or
#: eighths of them.
_PLAIN: Final = 1e-4


@dataclass
class Numbers:
    """Collects site by site."""

    engine_dtype: torch.dtype
    _seen: dict[tuple[str, str], list[tuple[str, Any, Any]]] = field(default_factory=dict)

    def add(self, site: Site, engine: Parameters, trainer: Parameters) -> None:
        for name, mine, other in _numbers(engine, trainer, self.engine_dtype):
            key = (KIND_LABELS[site.kind], name)
            self._seen.setdefault(key, []).append((site.key, mine, other))

    def checks(self) -> list[Check]:
        return [_check(kind, name, rows) for (kind, name), rows in self._seen.items()]


def differing_numbers(engine: Parameters, trainer: Parameters, dtype: torch.dtype) -> list[str]:
    """Names of the fields, weights aside, in which two sides of one op differ.

    `dtype` is the engine's, in which some of its numbers had to be read.
    """
    pairs = _numbers(engine, trainer, dtype)
    names = [name.replace(" ", "_") for name, mine, other in pairs if not _equal(mine, other)]
    return ["inverse_frequencies" if name == "frequencies" else name for name in names]


def _check(kind: str, name: str, rows: list[tuple[str, Any, Any]]) -> Check:
    what = f"{name} of {kind}"
    differ = [(site, mine, other) for site, mine, other in rows if not _equal(mine, other)]
    if not differ:
        values = list(dict.fromkeys(_shown(mine) for _, mine, _ in rows))
        return Check(what=what, equal=True, says=f"{', '.join(values)} ({len(rows)} ops)")
    pairs: dict[tuple[str, str], list[str]] = {}
    for site, mine, other in differ:
        pairs.setdefault((_shown(mine), _shown(other)), []).append(site)
    words = []
    for (mine, other), sites in pairs.items():
        rest = f" and {len(sites) - _NAMED_SITES} more" if len(sites) > _NAMED_SITES else ""
        named = ", ".join(sites[:_NAMED_SITES])
        words.append(f"engine {mine}, trainer {other} in {named}{rest}")
    return Check(what=what, equal=False, says="; ".join(words))


def _numbers(
    engine: Parameters, trainer: Parameters, dtype: torch.dtype
) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(engine, RotaryParameters) and isinstance(trainer, RotaryParameters):
        step = torch.finfo(dtype).eps
        close = isclose(engine.scaling, trainer.scaling, rel_tol=step)
        # The engine's was read from a table in its dtype.
        yield "scaling", engine.scaling, engine.scaling if close else trainer.scaling
        yield "frequencies", engine.inverse_frequencies, trainer.inverse_frequencies
        yield "head_dim", engine.head_dim, trainer.head_dim
        yield "interleaved", engine.interleaved, trainer.interleaved
        return
    if isinstance(engine, EmbeddingParameters) and isinstance(trainer, EmbeddingParameters):
        rounded = float(torch.tensor(trainer.scale).to(dtype))
        equal = engine.scale in (trainer.scale, rounded)
        yield "scale", engine.scale, engine.scale if equal else trainer.scale
        return
    for one in fields(engine):
        if one.name not in _NOT_COMPARED:
            mine, other = getattr(engine, one.name), getattr(trainer, one.name)
            if not isinstance(mine, Tensor) and not isinstance(other, Tensor):
                yield one.name.replace("_", " "), mine, other


def _equal(mine: Any, other: Any) -> bool:
    if isinstance(mine, Tensor) and isinstance(other, Tensor):
        if mine.shape != other.shape:
            return False
        return torch.allclose(mine.double(), other.double(), rtol=_FREQUENCIES, atol=_FREQUENCIES)
    if isinstance(mine, float) and isinstance(other, float):
        return isclose(mine, other, rel_tol=_RELATIVE)
    return bool(mine == other)


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{2 * len(value)} features, {_base(value)}"
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _base(frequencies: Tensor) -> str:
    """θ of frequencies θ^(−i / n), or where they run from and to."""
    found = frequencies.double()
    if len(found) > 1 and bool((found > 0).all()):
        exponents = torch.arange(len(found), dtype=torch.float64) / len(found)
        # What was read from a table has an absolute error: the logarithm of a high frequency is
        # known best.
        weights = found.square()
        slope = (weights * exponents * found.log()).sum() / (weights * exponents.square()).sum()
        base = float((-slope).exp())
        if torch.allclose(found, base**-exponents, rtol=_PLAIN, atol=_PLAIN):
            return f"base {base:.4g}"
    return f"{float(found[0]):.4g} to {float(found[-1]):.4g} per position"
