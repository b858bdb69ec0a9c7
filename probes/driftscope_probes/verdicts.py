"""Every verdict that a check may give: what it means, and its rank.

Tables run from best to worst; colours and symbols stay with the page or terminal that shows them.
Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from driftscope_kernels.options import VerdictName

AxisVerdictName = Literal["equal", "differs", "not_repeatable", "not_run"]
#: Verdict on an item of a nightly run: a kernel or an axis of an engine.
ItemVerdictName = Literal[VerdictName, "NOT_RUN", AxisVerdictName]

KERNEL_VERDICTS: Final[Mapping[VerdictName, str]] = {
    "PROVED": "the same order of additions for every batch size and row probed, at the shapes and "
    "on the assumptions that --json lists",
    "STATIC": "compiled code without atomics, one binary for all batch sizes; read, not run",
    "NOT_REFUTED": "no difference found by tests that catch the stated share of planted twins",
    "INCONCLUSIVE": "the tests catch too few planted twins, or the kernel failed",
    "REFUTED": "the bits of a row depend on what is named: the batch, the layout of memory, the "
    "number of threads …; the replay command shows them",
}
#: Verdicts on one axis of a kernel: a proof covers the whole kernel.
KERNEL_AXIS_VERDICTS: Final = ("REFUTED", "NOT_REFUTED")
AXIS_VERDICTS: Final[Mapping[AxisVerdictName, str]] = {
    "equal": "the same bits at every value of the axis",
    "differs": "other bits at some value of the axis",
    "not_repeatable": "other bits, but the same request gives other bits again: not the axis's",
    "not_run": "the axis could not be run, for the reason stated",
}
COMPARISON_VERDICTS: Final[Mapping[str, str]] = {
    "bitwise_equal": "both sides give the same bits for every token",
    "at_floor": "rounding alone explains the difference",
    "above_floor": "rounding alone does not explain the difference",
    "bug_like": "no difference of precision explains it",
    "not_comparable": "the sides do not hold the same tokens",
}
#: From best to worst, for rules, alerts and lines over the steps: what cannot be compared is worst.
COMPARISON_RANK: Final[Mapping[str, int]] = {
    word: rank for rank, word in enumerate(COMPARISON_VERDICTS)
}
#: Says nothing about the item, so it has no rank.
NOT_RUN: Final[Mapping[str, ItemVerdictName]] = {"kernel": "NOT_RUN", "engine": "not_run"}
#: Verdicts of nightly items by kind, from worst to best.
RANKS: Final[Mapping[str, tuple[ItemVerdictName, ...]]] = {
    "kernel": tuple(reversed(tuple(KERNEL_VERDICTS))),
    "engine": ("differs", "not_repeatable", "equal"),
}
#: States of an item, most urgent first.
ITEM_STATES: Final = ("worse", "better", "unexpected", "not run", "new", "as expected")
#: Outcomes of a nightly run by exit code.
OUTCOMES: Final[Mapping[int, str]] = {
    0: "As expected",
    1: "Something changed",
    2: "Something could not be run",
}
