"""Axes of how a prompt is read: in one piece or in chunks, and decoded tokens read as a prompt."""

from __future__ import annotations

from driftscope_probes.determinism.axes.base import Case, Job, choice, integer
from driftscope_probes.determinism.onset import Value
from driftscope_probes.determinism.plan import ROWS, Plan

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
