"""Registry: every injection of the drill."""

from __future__ import annotations

from driftscope_probes.diagnosis.drill.case import Injection
from driftscope_probes.diagnosis.drill.faults import (
    alignment,
    batch,
    cache,
    conversation,
    healthy,
    model,
    records,
    rounding,
    routing,
    semantics,
    shares,
    weights,
)

INJECTIONS: tuple[Injection, ...] = (
    *weights.INJECTIONS,
    *model.INJECTIONS,
    *cache.INJECTIONS,
    *routing.INJECTIONS,
    *batch.INJECTIONS,
    *shares.INJECTIONS,
    *semantics.INJECTIONS,
    *alignment.INJECTIONS,
    *conversation.INJECTIONS,
    *records.INJECTIONS,
    *healthy.INJECTIONS,
    *rounding.INJECTIONS,
)
