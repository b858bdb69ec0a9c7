"""Floors of the drill's own models: what `driftscope floor` would have measured for them.

In: the metadata of a step. Out: a calibrated floor where it comes from one of the drill's models,
measured on a healthy pair that is no case; None otherwise, and the prior holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import cast

from driftscope_probes.diagnosis.drill.case import Setting
from driftscope_probes.diagnosis.drill.lab import Lab
from driftscope_probes.diagnosis.drill.policies import POLICIES, policy_folder
from driftscope_probes.diagnosis.drill.pool import pair
from driftscope_probes.diagnosis.floor import Floor, measured_sigma, short_dtype
from driftscope_probes.diagnosis.observed import compared_tokens
from driftscope_probes.dtypes import TORCH_NAMES, Dtype

#: Far from the seeds of any case.
SEED = 77_000_000
SEQUENCES, TOKENS = 24, 48


def floor_of(metadata: Mapping[str, str]) -> Floor | None:
    model = metadata.get("model")
    dtypes = [short_dtype(metadata.get(name)) for name in ("rollout_dtype", "trainer_dtype")]
    if model not in POLICIES or any(dtype not in TORCH_NAMES for dtype in dtypes):
        return None
    rollout, trainer = (cast(Dtype, dtype) for dtype in dtypes)
    return _measured(str(model), rollout, trainer)


@lru_cache(maxsize=64)
def _measured(model: str, rollout: Dtype, trainer: Dtype) -> Floor | None:
    setting = Setting(
        name="floor",
        model=model,
        rollout_dtype=rollout,
        trainer_dtype=trainer,
        sequences=SEQUENCES,
        max_tokens=TOKENS,
        seed=SEED,
    )
    lab = Lab(policy_folder(model), rollout, trainer, SEED)
    healthy = pair(lab, setting)
    step = lab.step(healthy.sampled, healthy.scored)
    sigma = measured_sigma(compared_tokens(step))
    if not sigma:
        return None  # the same bits: nothing was rounded in another way
    return Floor(sigma, "calibrated", rollout, trainer, model, basis="a healthy pair of the drill")
