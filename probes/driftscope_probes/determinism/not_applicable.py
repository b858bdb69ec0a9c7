"""Why an axis cannot be run with an engine, before anything is loaded. Free of torch."""

from __future__ import annotations

from driftscope_probes.determinism.plan import Plan
from driftscope_probes.determinism.request import AxisName

#: They start an engine with other settings, which nobody can do over HTTP.
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
