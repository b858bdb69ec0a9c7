"""From what was observed of a step to its diagnosis.

In: Observed and the floor that holds for it. Out: Diagnosis.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.floor import Floor
from driftscope_probes.diagnosis.observed import Observed


def diagnose(observed: Observed, floor: Floor | None = None) -> Diagnosis:
    """`floor`: a calibrated one; without it the prior of the metadata's dtypes is used."""
    raise NotImplementedError
