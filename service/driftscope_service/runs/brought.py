"""What a pushed step brings to a diagnosis by controls: its own diagnosis, and its tokens where
they are kept and their prompts known.

In: the service, a run and a step. Out: JSON for the process of the probe, fixed at that moment:
tokens may be gone when the job begins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from driftscope_probes.diagnose.recorded import StepData, recorded_of, step_dtypes
from driftscope_probes.diagnosis.controls.sides import Recorded
from driftscope_service.numbers.diagnosis_words import read_diagnosis
from driftscope_service.runs.current import RunsService
from driftscope_service.runs.pages.step_view import MOST_RAW_TOKENS, NoTokens, token_source
from driftscope_service.runs.store.steps import StepRepository
from driftscope_service.runs.store.token_files import read_tokens


def step_brought(service: RunsService, run: str, step: int) -> Mapping[str, Any] | None:
    """StepData as JSON; None where there is no such step, or it was stored without a diagnosis."""
    with service.database.read() as connection:
        stored = StepRepository(connection).get(run, step)
    if stored is None:
        return None
    diagnosis = read_diagnosis(json.loads(stored.analysis).get("diagnosis"))
    if diagnosis is None:
        return None
    # A larger one would take gigabytes to read for a few sequences.
    recorded = _recorded(service, run, step) if stored.tokens <= MOST_RAW_TOKENS else None
    return StepData(diagnosis, recorded, *step_dtypes(stored.metadata)).to_dict()


def _recorded(service: RunsService, run: str, step: int) -> Recorded | None:
    try:
        source = token_source(service, run, step)
        return source.read(lambda path: recorded_of(read_tokens(path)), recorded_of)
    except NoTokens:
        return None
