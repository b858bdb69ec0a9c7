"""Importing this loads and compiles what an analysis needs: one of a single token.

For the process that analysis processes are forked from (analysis_pool.py), which does it once.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.analysis import analyze_step
from driftscope_probes.push.pushed_step import pushed_step
from driftscope_service.runs.ingest import analysis  # noqa: F401 — the functions that are asked for

_one = np.full(1, -1.0, dtype=np.float32)
analyze_step(
    pushed_step(
        {"rollout_logprobs": _one, "trainer_logprobs": _one, "cu_seqlens": np.array([0, 1])}, {}
    )
)
