"""How an axis plans what an engine is asked, and where outputs first differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from driftscope_probes.determinism.request import ROWS, AxisName, DeterminismRequest
from driftscope_probes.engines.sessions.question import Batch, Row, Setup
from driftscope_probes.record import Record

Value = int | str


#: Setting of the axis whose values are numbers of rows.
ROWS_TOGETHER = "rows together"


class Onset(Record):
    """`differs_from` is the smallest case found; larger values do not necessarily differ."""

    setting: str
    equal_up_to: Value | None  # None: the values have no order
    differs_from: Value
    tested: tuple[Value, ...]  # in the order of testing, the reference first


def find_onset(
    setting: str,
    values: Sequence[Value],
    differs: Mapping[Value, bool],
    test: Callable[[int], bool],
    *,
    ordered: bool,
    budget: int,
) -> Onset | None:
    """`values`: the reference first, ascending or descending; `differs` has all but the reference.

    `test` is asked at most `budget` times, for integers strictly between an equal and a differing
    one. A reference that is not a number lies before all numbers, below 1. None where nothing
    differs.
    """
    tested = list(values)
    index = next((i for i, value in enumerate(values) if differs.get(value)), None)
    if index is None:
        return None
    far = values[index]
    if not ordered:
        return Onset(setting=setting, equal_up_to=None, differs_from=far, tested=tuple(tested))
    near = values[index - 1]
    if index == 1 and not isinstance(near, int) and isinstance(far, int):
        near = 0
    while isinstance(near, int) and isinstance(far, int) and abs(far - near) > 1 and budget > 0:
        middle = (near + far) // 2
        tested.append(middle)
        budget -= 1
        if test(middle):
            far = middle
        else:
            near = middle
    equal = None if near == 0 and not isinstance(values[0], int) else near
    return Onset(setting=setting, equal_up_to=equal, differs_from=far, tested=tuple(tested))


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


#: They set or start an engine otherwise, or put it to sleep: not done to one that others run.
NEED_OUR_ENGINE: frozenset[AxisName] = frozenset(
    (
        *("chunked_prefill", "preemption", "sleep_wake", "reload", "replica"),
        *("fresh_process", "restart", "threads", "kv_split", "compiled"),
    )
)
#: They are about a scheduler, a cache or a life that transformers does not have.
NEED_A_SCHEDULER: frozenset[AxisName] = frozenset(
    (
        *("arrival_order", "staggered_arrival", "thinking_machines", "prefix_cache"),
        *("chunked_prefill", "preemption", "sleep_wake", "reload", "kv_split", "compiled"),
    )
)


def not_applicable(axis: AxisName, plan: Plan) -> str | None:
    """None: it can be tried."""
    engine = plan.setup.engine
    if plan.on_server and axis in NEED_OUR_ENGINE:
        return "it needs an engine of its own to set and start; this one runs behind a URL"
    if engine.kind == "hf" and axis in NEED_A_SCHEDULER:
        return "transformers has no scheduler, no cache shared between requests and no sleep"
    if axis == "kv_split" and engine.threads == 1:
        return "one thread never splits keys; give threads 2 or more"
    if axis == "compiled" and engine.kernels == "invariant":
        return "invariant kernels run eagerly"
    return None
