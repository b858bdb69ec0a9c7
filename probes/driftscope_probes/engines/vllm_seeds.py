"""Seeds of requests whose prompts vLLM reads in pieces, on a CPU.

In: nothing. Out: `let_seeds_survive_chunks`, to be called once before an engine is created.

After each piece but the last, vLLM throws a drawn token away and turns the request's generator
back with `set_offset`, which a CPU's generator does not have (vLLM 0.32: "CPU Generator does not
use offset"; the engine dies). Ours goes back to its seed: nothing else was drawn until then.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.platforms import current_platform
from vllm.v1.worker import gpu_model_runner


class RewindingGenerator(torch.Generator):
    """A CPU generator that can be turned back to its seed, and no further.

    A request that was preempted and is read again in pieces therefore draws its first numbers anew:
    the same ones in every run, which is what a seed is for.
    """

    def get_offset(self) -> int:
        return 0

    def set_offset(self, offset: int) -> torch.Generator:
        return self.manual_seed(self.initial_seed())


_STATE = gpu_model_runner.CachedRequestState


def _state(*args: Any, **fields: Any) -> Any:
    given = fields.get("generator")
    if given is not None:
        fields["generator"] = RewindingGenerator().manual_seed(given.initial_seed())
    return _STATE(*args, **fields)


def let_seeds_survive_chunks() -> None:
    """On a CPU; GPUs have offsets."""
    if current_platform.is_cpu():
        gpu_model_runner.CachedRequestState = _state
