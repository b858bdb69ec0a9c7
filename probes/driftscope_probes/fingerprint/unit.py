"""Something that sums products, seen from outside: only what goes in and what comes out.

The leaves of a sum are numbered: where the unit adds to an old value c, leaf 0 is c and the
products follow; without c, leaf 0 is the first product. In: what every leaf holds. Out: sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.fingerprint.formats import Format, exponent_range, factors

Values: TypeAlias = NDArray[np.float64]
#: a [n, K], b [n, K], c [n] to [n]; every number is one of the unit's formats.
Run: TypeAlias = Callable[[Values, Values, Values], Values]
#: The value of a leaf, or of a product its two factors. Leaves that are not named hold zero.
Probe: TypeAlias = Mapping[int, "float | tuple[float, float]"]


@dataclass(frozen=True, slots=True)
class Unit:
    products: int  # K
    a: Format
    b: Format
    c: Format | None  # None: it adds to nothing
    result: Format
    run: Run

    @property
    def leaves(self) -> int:
        return self.products + self.shift

    @property
    def shift(self) -> int:
        """The leaf of the first product."""
        return int(self.c is not None)

    def sums(self, probes: Sequence[Probe], rest: float = 0.0) -> Values:
        """float64 [probes]; leaves that a probe does not name hold `rest`."""
        one, other = factors(rest, self.a, self.b)
        a = np.full((len(probes), self.products), one)
        b = np.full((len(probes), self.products), other)
        c = np.full(len(probes), rest)
        for row, probe in enumerate(probes):
            for leaf, value in probe.items():
                at = leaf - self.shift
                if isinstance(value, tuple):
                    a[row, at], b[row, at] = value
                elif at < 0:
                    c[row] = value
                else:
                    a[row, at], b[row, at] = factors(value, self.a, self.b)
        return self.run(a, b, c)

    def leaf_range(self, *, normal: bool) -> tuple[int, int]:
        """Exponents that every leaf and the result can have."""
        low, high = exponent_range(self.a, self.b, normal=normal)
        for form in (self.result, self.c or self.result):
            low = max(low, form.least_normal if normal else form.smallest)
            high = min(high, form.largest)
        return low, high
