"""Numbers as text: three significant digits, no false zeros, no false hundreds.

In: finite floats and ints of a report. Out: short strings that never claim more than was measured.
"""

from __future__ import annotations

import math

DIGITS = 3
#: Outside these bounds the exponent is written; within them the eye compares decimals faster.
PLAIN_FROM, PLAIN_BELOW = 1e-3, 1e5
#: Rounding of a correlation or of an effective sample size in float64: below it, 0 is uncertain.
FLOAT64_NOISE = 1e-15
UNDEFINED = "undefined"


def number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    size = abs(float(f"{value:.{DIGITS - 1}e}"))  # 0.0009999 rounds up into the plain range
    if not PLAIN_FROM <= size < PLAIN_BELOW:
        mantissa, exponent = f"{value:.{DIGITS - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    decimals = max(0, DIGITS - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def share(value: float) -> str:
    """As a percentage; 100% and 0% only where it is exactly that."""
    if value in (0, 1):
        return f"{value * 100:.0f}%"
    return f"{_below_one(value * 100, 100)}%"


def near_one(value: float) -> str:
    """A ratio whose distance from 1 matters: 1 only where it is exactly that."""
    return "1" if value == 1 else _below_one(value, 1)


def one_minus(value: float) -> str:
    """1 − value, for a correlation: 0 would claim more than float64 knows."""
    rest = 1 - value
    return f"<{number(FLOAT64_NOISE)}" if abs(rest) < FLOAT64_NOISE else number(rest)


def interval(low: str, high: str) -> str:
    return f"{low} – {high}"


def shared_exponent(low: float, high: float) -> str:
    """An interval in as few characters as possible: `(9.81 – 11.0)e-6`."""
    low_text, high_text = number(low), number(high)
    if "e" not in high_text or low < 0:
        return interval(low_text, high_text)
    exponent = int(high_text.partition("e")[2])
    return f"({number(low / 10**exponent)} – {high_text.partition('e')[0]})e{exponent}"


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def _below_one(value: float, whole: float) -> str:
    rest = abs(whole - value)
    if rest >= 0.1 * whole:
        return number(value)
    # As many decimals as the distance from the whole needs to show two digits of it.
    return f"{value:.{max(1, 1 - math.floor(math.log10(rest)))}f}"
