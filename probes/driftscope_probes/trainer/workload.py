"""How far the trainer has come: input tokens, weighted by what they cost in each mode."""

from __future__ import annotations

from driftscope_probes.dtypes import Dtype
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_probes.trainer.precision import TrainerMode

#: Time of a forward pass relative to bf16 on a CPU with bf16 instructions (0.4, 0.8 and 2.9 s for
#: 165 tokens of SmolLM2): fp16 products are emulated there. Only the progress bar rests on it.
FORWARD_COST: dict[Dtype, float] = {"bf16": 1.0, "fp32": 2.0, "fp16": 7.0}
#: A backward pass has two matrix products for each of the forward's.
BACKWARD_FACTOR = 3.0


class Workload:
    """Adds up work done and reports it as a fraction of the work planned."""

    def __init__(self, sink: ProgressSink) -> None:
        self._sink = sink
        self._planned = 0.0
        self._done = 0.0

    def plan(self, mode: TrainerMode, tokens: int, *, backward: bool) -> None:
        self._planned += tokens * token_cost(mode, backward=backward)

    def starts(self, stage: str) -> None:
        self._sink(Progress(stage, self._done / self._planned))

    def done(self, stage: str, mode: TrainerMode, tokens: int, *, backward: bool) -> None:
        self._done += tokens * token_cost(mode, backward=backward)
        self.starts(stage)


def token_cost(mode: TrainerMode, *, backward: bool) -> float:
    return FORWARD_COST[mode.compute] * (BACKWARD_FACTOR if backward else 1.0)
