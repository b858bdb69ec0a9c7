"""Axis name -> axis."""

from __future__ import annotations

from driftscope_probes.determinism.axes.base import Axis
from driftscope_probes.determinism.axes.batch import (
    ArrivalOrder,
    BatchSize,
    Neighbours,
    Position,
    StaggeredArrival,
)
from driftscope_probes.determinism.axes.lifecycle import Reload, Replica, Restart, SleepWake
from driftscope_probes.determinism.axes.memory import (
    ChunkedPrefill,
    DecodeVsPrefill,
    Preemption,
    PrefixCache,
)
from driftscope_probes.determinism.axes.process import Compiled, KvSplit, Threads
from driftscope_probes.determinism.axes.protocols import (
    SglangMixed,
    SglangPrefix,
    SglangSingle,
    ThinkingMachines,
)
from driftscope_probes.determinism.axes.repeat import FreshProcess, RunToRun, SeededSampling
from driftscope_probes.determinism.request import AxisName

AXIS: dict[AxisName, Axis] = {
    "run_to_run": RunToRun(),
    "batch_size": BatchSize(),
    "position": Position(),
    "neighbours": Neighbours(),
    "arrival_order": ArrivalOrder(),
    "staggered_arrival": StaggeredArrival(),
    "decode_vs_prefill": DecodeVsPrefill(),
    "seeded_sampling": SeededSampling(),
    "sglang_single": SglangSingle(),
    "sglang_mixed": SglangMixed(),
    "sglang_prefix": SglangPrefix(),
    "thinking_machines": ThinkingMachines(),
    "prefix_cache": PrefixCache(),
    "chunked_prefill": ChunkedPrefill(),
    "preemption": Preemption(),
    "sleep_wake": SleepWake(),
    "reload": Reload(),
    "replica": Replica(),
    "restart": Restart(),
    "fresh_process": FreshProcess(),
    "threads": Threads(),
    "kv_split": KvSplit(),
    "compiled": Compiled(),
}
