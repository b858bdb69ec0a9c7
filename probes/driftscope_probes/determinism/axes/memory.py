"""Axes of cache and prefill: prefix cache, preemption, chunked prefill, decode against prefill."""

from __future__ import annotations

from dataclasses import replace

from driftscope_probes.determinism.axes.base import Case, Demand, Job, choice, integer
from driftscope_probes.determinism.batch import Plan, Value
from driftscope_probes.determinism.request import ROWS
from driftscope_probes.engines.settings import BLOCK_TOKENS
from driftscope_probes.errors import RequestError

OFF, COLD, HOT = "off", "cold", "hot"
AMPLE, SMALL = "ample", "small"
#: Prompts that end so near the end of a block that every request soon asks for another one.
TOKENS_TO_BLOCK_END = 4
#: Two whole blocks of 128 tokens, vLLM's largest by default, and some more.
CACHED_PROMPT_TOKENS = 300


class PrefixCache:
    """Off, empty, and holding the prompts; `hot` counts only if the engine took tokens from it."""

    setting = "prefix cache"
    ordered = False

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (COLD, HOT) if plan.on_server else (OFF, COLD, HOT)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case(self._jobs(plan, reference), self._jobs(plan, value))

    def _jobs(self, plan: Plan, value: Value) -> tuple[Job, ...]:
        state = choice(value, self.setting, (OFF, COLD, HOT))
        if plan.on_server and state == OFF:
            raise RequestError(
                "the prefix cache of a running server cannot be turned off.",
                remedy=f"compare {COLD} with {HOT}.",
            )
        setup = plan.setup if plan.on_server else plan.setup.changed(prefix_caching=state != OFF)
        rows = [plan.row(index, CACHED_PROMPT_TOKENS) for index in range(3)]
        batches = [plan.batch(part, warm=state == HOT) for part in (rows[:1], rows[1:])]
        demand: Demand | None = "cached" if state == HOT else None
        return tuple(Job(setup, batch, demand=demand) for batch in batches)


class Preemption:
    """A cache too small for all requests: some are thrown out and computed again.

    Counts only if the engine did preempt.
    """

    setting = "key-value cache"
    ordered = False

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (AMPLE, SMALL)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case((self._job(plan, reference),), (self._job(plan, value),))

    def _job(self, plan: Plan, value: Value) -> Job:
        small = choice(value, self.setting, (AMPLE, SMALL)) == SMALL
        # vLLM asks for room for one whole sequence, and keeps one block for padding.
        blocks = -(-plan.setup.context // BLOCK_TOKENS) + 1
        setup = replace(plan.setup, cache_tokens=blocks * BLOCK_TOKENS) if small else plan.setup
        rows = [plan.row(index, BLOCK_TOKENS - TOKENS_TO_BLOCK_END) for index in range(ROWS)]
        return Job(setup, plan.batch(rows), demand="preemption" if small else None)


#: Longer than every chunk tried, shorter than vLLM's own budget of one step.
CHUNKED_PROMPT_TOKENS = 300
WHOLE = 2048
LEAST_CHUNK, MOST_CHUNK = 16, 1_048_576
PREFILL = "prefill"


class ChunkedPrefill:
    """Long prompts, read so many tokens per engine step; the reference reads them whole."""

    setting = "prompt tokens per engine step"
    ordered = True

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (WHOLE, 128, 32)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case(self._jobs(plan, reference), self._jobs(plan, value))

    def _jobs(self, plan: Plan, value: Value) -> tuple[Job, ...]:
        tokens = integer(value, self.setting, LEAST_CHUNK, MOST_CHUNK)
        # An engine must take a token of each running request in one step.
        setup = plan.setup.changed(chunked_prefill_tokens=tokens, batch_size=LEAST_CHUNK)
        rows = [plan.row(index, CHUNKED_PROMPT_TOKENS) for index in range(3)]
        return Job(setup, plan.batch(rows[:1])), Job(setup, plan.batch(rows[1:]))


class DecodeVsPrefill:
    """Tokens decoded in a batch of B against the same tokens read at once after their prompt."""

    setting = "rows decoded together"
    ordered = False

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (PREFILL, 1, 2, ROWS)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        choice(reference, "reference of decode_vs_prefill", (PREFILL,))
        size = integer(value, self.setting, 1, ROWS)
        groups = [plan.rows()[start : start + size] for start in range(0, ROWS, size)]
        jobs = [Job(plan.setup, plan.batch(rows)) for rows in groups[: 1 if size > 1 else 2]]
        scored = tuple(Job(job.setup, job.batch, rescore=True) for job in jobs)
        return Case(scored, tuple(jobs))
