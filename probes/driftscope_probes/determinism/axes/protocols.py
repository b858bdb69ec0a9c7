"""Determinism protocols of other projects, by name, sized for a CPU.

SGLang's test_deterministic.py: modes single, mixed and prefix, each reporting the number of unique
outputs of a prompt. Thinking Machines' "Defeating Nondeterminism in LLM Inference" (2025): one
prompt sampled 1,000 times at temperature 0, unique completions and the first differing token.
Here every row is compared, not the first of a batch alone.
"""

from __future__ import annotations

from driftscope_probes.determinism.axes.base import Case, Job, choice, integer
from driftscope_probes.determinism.axes.batch import apart
from driftscope_probes.determinism.batch import Plan, Value
from driftscope_probes.determinism.request import MOST_BATCH, MOST_SAMPLES
from driftscope_probes.engines.sessions.question import Row

#: SGLang goes through 1 to 50.
SIZES = (1, 2, 4, 8, 16)
#: SGLang's are two short questions and one long text.
MIXED_TOKENS = (24, 40, 320)
#: SGLang's are 1, 511, 2048 and 4097 tokens of one text: below, at and above its block sizes.
PREFIX_TOKENS = (1, 63, 128, 257)
SAMPLED_TOKENS = 40
FIRST_SAMPLE = "first"


class SglangSingle:
    """Copies of one prompt in batches of 1, 2, …: all their outputs are one."""

    setting = "copies in a batch"
    ordered = True

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return SIZES

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        return Case((self._job(plan, reference),), (self._job(plan, value),))

    def _job(self, plan: Plan, value: Value) -> Job:
        copies = integer(value, self.setting, 1, MOST_BATCH)
        return Job(plan.setup, plan.batch([plan.row(0, SAMPLED_TOKENS)] * copies))


class SglangMixed:
    """Two short prompts and a long one, in changing shares of batches of 1, 2, …"""

    setting = "batch size"
    ordered = True

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return SIZES

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        least = integer(reference, self.setting, 1, MOST_BATCH)
        size = integer(value, self.setting, 1, MOST_BATCH)
        kinds = [plan.row(index, length) for index, length in enumerate(MIXED_TOKENS)]
        alone = tuple(Job(plan.setup, plan.batch([row] * least)) for row in kinds)
        return Case(alone, (Job(plan.setup, plan.batch(mixed(kinds, size))),))


class SglangPrefix:
    """Prompts that are longer and longer beginnings of one text, in batches of 1, 2, …"""

    setting = "batch size"
    ordered = True

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return SIZES

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        least = integer(reference, self.setting, 1, MOST_BATCH)
        size = integer(value, self.setting, 1, MOST_BATCH)
        kinds = [plan.row(0, length) for length in PREFIX_TOKENS]
        alone = tuple(Job(plan.setup, plan.batch([row] * least)) for row in kinds)
        rows = [kinds[index % len(kinds)] for index in range(size)]
        return Case(alone, (Job(plan.setup, plan.batch(rows)),))


class ThinkingMachines:
    """Samples of one prompt at temperature 0, one engine step apart, as from a busy client."""

    setting = "samples"
    ordered = False

    def values(self, plan: Plan) -> tuple[Value, ...]:
        return (FIRST_SAMPLE, plan.request.samples)

    def case(self, plan: Plan, reference: Value, value: Value) -> Case:
        choice(reference, "reference of thinking_machines", (FIRST_SAMPLE,))
        samples = integer(value, self.setting, 1, MOST_SAMPLES)
        rows = apart([plan.row(0, SAMPLED_TOKENS)] * samples, 1)
        job = Job(plan.setup, plan.batch(rows))
        return Case((job,), (job,))


def mixed(kinds: list[Row], size: int) -> list[Row]:
    """Row i is of kind i²·size + i: shares and order change with the size, without chance."""
    return [kinds[(index * index * size + index) % len(kinds)] for index in range(size)]
