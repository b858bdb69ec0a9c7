"""How far apart server and trainer may be without a finding: the server's own noise, and rounding.

In: the server asked the same twice, the trainer in both dtypes and in float32. Out: Floors.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnose.pair import has_experts
from driftscope_probes.diagnosis.controls.sides import Sequences, gap_of
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO, prior_floor
from driftscope_probes.dtypes import parse_mode
from driftscope_probes.explain.server.changed_folder import config_of
from driftscope_probes.explain.server.client import Served, ServerClient
from driftscope_probes.explain.server.measure import common
from driftscope_probes.explain.server.report import Floors
from driftscope_probes.explain.server.request import ServerExplainRequest
from driftscope_probes.explain.server.trainer_side import ServerTrainer
from driftscope_probes.explain.server.variants import Way
from driftscope_probes.models.folder import ModelFolder


def floors_of(
    request: ServerExplainRequest,
    client: ServerClient,
    trainer: ServerTrainer,
    base: Served,
    model: ModelFolder,
) -> Floors:
    """The server asked the same twice, and this very model's own rounding. Raises ProbeError."""
    sampling = request.sampling
    again = client.sample(
        base.sequences.prompts, sampling.max_tokens, temperature=sampling.temperature
    )
    mine, theirs = common(base.sequences, again.sequences)
    itself = gap_of(base.bits[mine], again.bits[theirs]) if mine.any() else None
    sigma, basis = _rounding(request, trainer, base.sequences, model)
    return Floors(
        server_itself=0.0 if itself is None else itself.sigma,
        server_itself_equal=0.0 if itself is None else itself.equal,
        rounding=max(sigma, 0.0 if itself is None else itself.sigma),
        basis=basis,
    )


def _rounding(
    request: ServerExplainRequest, trainer: ServerTrainer, on: Sequences, model: ModelFolder
) -> tuple[float, str]:
    """Both sides' errors against float32, independent and so added as squares."""
    mode = parse_mode(request.trainer_dtype)
    dtypes = (request.engine_dtype, mode.compute)
    prior = prior_floor(*dtypes, moe=has_experts(config_of(model.path)), model=request.model)
    if dtypes == ("fp32", "fp32"):
        return prior.sigma, f"the floor of fp32, sigma {prior.sigma:.2g}, from published pairs"
    wide = trainer.score(on, Way(dtype="fp32", quiet=True))
    errors = [
        gap_of(trainer.score(on, Way(dtype=dtype, quiet=True)), wide).sigma
        for dtype in dtypes
        if dtype != "fp32"
    ]
    sigma = max(float(np.sqrt(np.sum(np.square(errors)))), prior_floor("fp32", "fp32").sigma)
    return sigma, (
        f"this model's own error of rounding in {' and '.join(dtypes)}, against fp32 on these "
        f"tokens, is sigma {sigma:.2g}"
    )


def floors_limit(floors: Floors) -> float:
    """Sigma up to which a gap is at the floor."""
    return AT_FLOOR_UP_TO * floors.rounding
