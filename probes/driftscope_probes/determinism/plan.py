"""Plan: what all axes of one dtype and choice of kernels share: engine setup, prompts, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from driftscope_probes.determinism.batch import Batch, Row
from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.determinism.setup import Setup

#: Rows of a batch whose size is not the question: enough that no engine treats it as a single one.
ROWS = 8
#: Odd and no divisor of the text's length in general: prompts begin at different words.
PROMPT_STRIDE = 37


@dataclass(frozen=True, slots=True)
class Plan:
    """`text`: token ids of running text, from which every prompt is cut."""

    request: DeterminismRequest
    setup: Setup
    text: tuple[int, ...]

    @property
    def on_server(self) -> bool:
        """Whether the engine runs already, with settings that are its own."""
        return self.setup.engine.kind == "vllm-server"

    def prompt(self, index: int, length: int | None = None) -> tuple[int, ...]:
        """Prompt `index`, of its own length or the one given; the same in every probe."""
        lengths = self.request.prompt_tokens
        size = lengths[index % len(lengths)] if length is None else length
        start = index * PROMPT_STRIDE % len(self.text)
        return tuple(self.text[(start + place) % len(self.text)] for place in range(size))

    def row(self, index: int, length: int | None = None) -> Row:
        key = f"prompt {index}" if length is None else f"prompt {index} of {length} tokens"
        return Row(key, self.prompt(index, length))

    def rows(self, count: int = ROWS) -> tuple[Row, ...]:
        return tuple(self.row(index) for index in range(count))

    def batch(self, rows: Sequence[Row], *, warm: bool = False, run: int = 0) -> Batch:
        return Batch(tuple(rows), self.request.max_tokens, warm=warm, run=run)
