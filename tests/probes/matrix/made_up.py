"""Answers of places that were never asked, and places that give them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.engines.settings import EngineSettings
from driftscope_probes.errors import ProbeError
from driftscope_probes.matrix.work import PROTOCOL, Answer, Scores, Subject, Work, pack
from driftscope_probes.progress import ProgressSink

ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.2",
    "platform": "Linux-6.1",
    "packages": {"torch": "2.9.0", "vllm": "0.30.0", "driftscope": "0.1.0"},
    "hardware": {"cpu": "A", "cpu_features": ["avx2"], "cores": 2, "memory_gib": 23.0},
    "variables": {},
    "libraries": {"CPU capability of torch": "AVX2"},
    "kernel_packages": {},
    "commit": None,
}
LOGPROBS: NDArray[np.float32] = np.array([[-1.0, -2.0, -3.0], [-0.5, -0.25, -4.0]], np.float32)
TOKENS: NDArray[np.int32] = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
WORK = Work(
    protocol=PROTOCOL,
    model="tiny",
    fingerprint="f",
    engine=EngineSettings(kind="hf"),
    engine_dtypes=("bf16",),
    trainer_dtypes=("fp32",),
    prompts=((1, 2), (3,)),
    responses=None,
    max_tokens=3,
    seed=0,
    seconds=10,
)
PREFILL, GREEDY, FORWARD = tuple(WORK.subjects())


def environment(**changes: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of the environment with some of their entries replaced."""
    found = deepcopy(ENVIRONMENT)
    for part, entries in changes.items():
        found[part] |= entries
    return found


def scores(logprobs: NDArray[np.float32] = LOGPROBS, **own: Any) -> Scores:
    return Scores(logprobs, own.pop("again", logprobs), **own)


def greedy(logprobs: NDArray[np.float32] = LOGPROBS, tokens: NDArray[np.int32] = TOKENS) -> Scores:
    return Scores(logprobs, logprobs, tokens, tokens)


def answer(found: Mapping[str, Any] = ENVIRONMENT, **other: Scores) -> Answer:
    """`other`: by way, what is not as at every other place."""
    every: dict[Subject, Scores] = {
        PREFILL: other.get("prefill", scores()),
        GREEDY: other.get("greedy", greedy()),
        FORWARD: other.get("forward", scores()),
    }
    facts = {"environment": found, "notes": [], "settings": {}, "timing": {"total_s": 1.0}}
    return Answer(TOKENS, every, facts)


def moved(by: float, sequence: int = 1, token: int = 2) -> NDArray[np.float32]:
    changed = LOGPROBS.copy()
    changed[sequence, token] += np.float32(by)
    return changed


@dataclass
class MadeUp:
    """A place without a process."""

    name: str
    outcome: Answer | ProbeError | bytes
    variables: Mapping[str, str] = field(default_factory=dict)
    kind: str = "local"
    beside_others: bool = False
    own_python: bool = False
    asked: list[Work] = field(default_factory=list)

    def run(self, work: Work, workdir: Path, progress: ProgressSink) -> bytes:
        self.asked.append(work)
        if isinstance(self.outcome, ProbeError):
            raise self.outcome
        return self.outcome if isinstance(self.outcome, bytes) else pack(self.outcome)
