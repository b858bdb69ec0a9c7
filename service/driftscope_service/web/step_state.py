"""The state of one step as a word and a sentence. In: the limits it crossed. Out: RunState."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from driftscope_service.web.moment import RunState
from driftscope_service.web.run_state import crossed_sentence


def step_state(crossed: Sequence[Mapping[str, Any]]) -> RunState:
    if crossed:
        return RunState("bad", "beyond limits", f"This step is beyond {crossed_sentence(crossed)}.")
    return RunState("good", "within limits", "This step is within every published limit.")
