"""Names of the array types that flow through the comparison."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
LogprobArray: TypeAlias = NDArray[np.floating[Any]]  # float32 or float64, as it was given
