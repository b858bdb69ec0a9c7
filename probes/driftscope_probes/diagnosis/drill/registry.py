"""Registry: every injection of the drill."""

from __future__ import annotations

from driftscope_probes.diagnosis.drill.case import Injection
from driftscope_probes.diagnosis.drill.faults import (
    alignment,
    conversation,
    healthy,
    model,
    records,
    semantics,
    weights,
)

INJECTIONS: tuple[Injection, ...] = (
    *healthy.INJECTIONS,
    *records.INJECTIONS,
    *alignment.INJECTIONS,
    *semantics.INJECTIONS,
    *conversation.INJECTIONS,
    *weights.INJECTIONS,
    *model.INJECTIONS,
)
