"""One framework's metrics as it names them, with values JSON can carry.

In: floats, NaN and infinity among them. Out: finite floats, None for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

from driftscope_probes.mismatch.arrays import BoolArray, FloatArray

# None: the framework itself would log NaN or an infinity, or would refuse the batch.
AliasValues: TypeAlias = dict[str, float | None]


def alias_values(values: Mapping[str, float], prefix: str = "") -> AliasValues:
    return {
        prefix + name: float(value) if math.isfinite(value) else None
        for name, value in values.items()
    }


def mean(values: FloatArray | BoolArray) -> float:
    """NaN, not a warning, where there is nothing to average."""
    return float(values.mean()) if values.size else math.nan


def biggest(values: FloatArray) -> float:
    return float(values.max()) if values.size else math.nan


def smallest(values: FloatArray) -> float:
    return float(values.min()) if values.size else math.nan


def unbiased_std(values: FloatArray) -> float:
    """torch.std: divides by n − 1, NaN for a single value."""
    return float(values.std(ddof=1)) if values.size > 1 else math.nan
