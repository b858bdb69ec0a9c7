"""What an axis plans its jobs with, and which axes cannot be measured here, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from driftscope_probes.determinism.batch import Batch, Row, Setup
from driftscope_probes.determinism.request import AxisName, DeterminismRequest

#: Rows of a batch whose size is not the question: enough that no engine treats it as a single one.
ROWS = 8
#: Odd and rarely a divisor of the text's length: prompts begin at different words.
PROMPT_STRIDE = 37


@dataclass(frozen=True, slots=True)
class Plan:
    """`text`: token ids of running text, from which every prompt is cut."""

    request: DeterminismRequest
    setup: Setup
    text: tuple[int, ...]

    @property
    def on_server(self) -> bool:
        """Whether the engine is already running with its own settings."""
        return self.setup.engine.kind == "vllm-server"

    def prompt(self, index: int, length: int | None = None) -> tuple[int, ...]:
        """Prompt `index`, of its own length or the one given; the same in every probe."""
        lengths = self.request.prompt_tokens
        size = lengths[index % len(lengths)] if length is None else length
        start = index * PROMPT_STRIDE % len(self.text)
        return tuple(self.text[(start + offset) % len(self.text)] for offset in range(size))

    def row(self, index: int, length: int | None = None) -> Row:
        key = f"prompt {index}" if length is None else f"prompt {index} of {length} tokens"
        return Row(key, self.prompt(index, length))

    def rows(self, count: int = ROWS) -> tuple[Row, ...]:
        return tuple(self.row(index) for index in range(count))

    def batch(self, rows: Sequence[Row], *, warm: bool = False, run: int = 0) -> Batch:
        return Batch(tuple(rows), self.request.max_tokens, warm=warm, run=run)


#: They start an engine with other settings, which is impossible over HTTP.
NEED_OUR_ENGINE: frozenset[AxisName] = frozenset(
    ("chunked_prefill", "preemption", "fresh_process", "threads", "kv_split", "compiled")
)
#: They are about a scheduler or a cache that transformers does not have.
NEED_A_SCHEDULER: frozenset[AxisName] = frozenset(
    (
        *("arrival_order", "staggered_arrival", "thinking_machines", "prefix_cache"),
        *("chunked_prefill", "preemption", "kv_split", "compiled"),
    )
)


def not_applicable(axis: AxisName, plan: Plan) -> str | None:
    """None: it can be tried."""
    engine = plan.setup.engine
    if plan.on_server and axis in NEED_OUR_ENGINE:
        return "it needs an engine with other settings; this one runs behind a URL"
    if engine.kind == "hf" and axis in NEED_A_SCHEDULER:
        return "transformers has no scheduler and no cache shared between requests"
    if axis == "kv_split" and engine.threads == 1:
        return "one thread never splits keys; give threads 2 or more"
    if axis == "compiled" and engine.kernels == "invariant":
        return "invariant kernels run eagerly"
    return None
