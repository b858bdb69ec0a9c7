"""Two hosts side by side in the terminal: what can change numerics as a list, the rest counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.text import Text

from driftscope_probes.lint.against import KIND_WORDS, Comparison, Difference
from driftscope_probes.lint.numerics import Changes
from driftscope_probes.plural import counted
from driftscope_service.terminal.findings import shown

TITLES: Final[Mapping[Changes, str]] = {
    "yes": "Can change numerics",
    "perhaps": "May change numerics",
    "no": "Cannot change numerics",
}
TONES: Final[Mapping[Changes, str]] = {"yes": "bold red", "perhaps": "bold yellow", "no": "bold"}
#: A frozen list against another has hundreds of packages that compute nothing.
FOLDED: Final[Changes] = "no"


def print_comparison(comparison: Comparison, console: Console, *, every: bool = False) -> None:
    """`every`: also what cannot change numerics, one by one."""
    console.print()
    console.print(Text(difference_sentence(comparison), "bold"))
    for changes, title in TITLES.items():
        found = comparison.of(changes)
        if not found:
            continue
        console.print()
        if changes == FOLDED and not every:
            console.print(Text(f"{title}: {counted(len(found), 'difference')}; --all", "dim"))
            continue
        console.print(Text(title, TONES[changes]))
        for one in found:
            console.print(Text(f"  {difference_line(one)}"), soft_wrap=True)
            console.print(Text(f"    {one.reason}", "dim"))


def difference_sentence(comparison: Comparison) -> str:
    count = counted(len(comparison.differences), "difference")
    untold = comparison.untold
    told = f" Only one side tells of {' and of '.join(untold)}: not compared." if untold else ""
    return f"{count}, {comparison.same} the same.{told}"


def difference_line(one: Difference) -> str:
    """ "torch 2.9.0 → 2.10.0 (versions of packages)": the first is of PATH, the second of OTHER."""
    return f"{one.name}: {shown(one.here)} → {shown(one.there)}  ({KIND_WORDS[one.kind]})"
