"""By hand: every control in the words of the user's own framework. Free of torch.

In: the name of a control and, where it is known, a framework. Out: the option to set, or what to do
where the framework has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from driftscope_probes.diagnosis.by_hand.base import ByHand, Framework
from driftscope_probes.diagnosis.by_hand.engine import ENGINE
from driftscope_probes.diagnosis.by_hand.trainer import TRAINER
from driftscope_probes.diagnosis.by_hand.weights import WEIGHTS

BY_HAND: Final[Mapping[str, ByHand]] = {**ENGINE, **TRAINER, **WEIGHTS}


def instructions(control: str, framework: Framework | None = None) -> dict[str, str]:
    """By framework, or by "any" where it has no option; empty for a control only we can run."""
    entry = BY_HAND.get(control)
    if entry is None:
        return {}
    if framework is not None:
        return {framework: entry.how(framework)}
    return {**{str(name): said for name, said in entry.options.items()}, "any": entry.otherwise}
