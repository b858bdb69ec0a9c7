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
    *weights.INJECTIONS,
    *model.INJECTIONS,
    *semantics.INJECTIONS,
    *alignment.INJECTIONS,
    *conversation.INJECTIONS,
    *records.INJECTIONS,
    *healthy.INJECTIONS,
)
