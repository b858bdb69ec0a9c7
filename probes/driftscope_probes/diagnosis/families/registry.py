"""Every cause that a diagnosis can name, family by family."""

from __future__ import annotations

from collections.abc import Mapping

from driftscope_probes.diagnosis.families import (
    alignment,
    batching,
    caches,
    controlled,
    conversation,
    decoding,
    experts,
    model,
    precision,
    records,
    sampling,
    weights,
    workers,
)
from driftscope_probes.diagnosis.families.base import Cause

CAUSES: tuple[Cause, ...] = (
    *records.CAUSES,
    *alignment.CAUSES,
    *sampling.CAUSES,
    *conversation.CAUSES,
    *batching.CAUSES,
    *workers.CAUSES,
    *caches.CAUSES,
    *decoding.CAUSES,
    *weights.CAUSES,
    *model.CAUSES,
    *experts.CAUSES,
    *precision.CAUSES,
    *controlled.CAUSES,
)
BY_NAME: Mapping[str, Cause] = {cause.name: cause for cause in CAUSES}
