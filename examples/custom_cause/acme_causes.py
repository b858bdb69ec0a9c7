"""A cause of one's own: the gateway in front of the engine biases one token's logit.

The trainer knows nothing of it, so that whenever this token was drawn Δ is about minus the bias.
"""

import numpy as np

from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.plots import trainer_on_rollout

MARKER = 7  # the token that Acme's gateway makes likelier
FEW = 8  # fewer draws of it show nothing


def detect(seen: Examination) -> Finding | None:
    ids = seen.signals.per_token(seen.signals.extras.token_ids)
    if ids is None:
        return None
    body, marked = seen.signals.body, ids == MARKER
    if marked.sum() < FEW or (~marked).sum() < FEW:
        return None
    # Δ / (1 - p): what was done to the logit, whatever the token's probability.
    shift, spread = float(np.median(body.residual[marked])), float(np.std(body.residual[marked]))
    others = float(np.median(np.abs(body.residual[~marked])))
    far = ramp(abs(shift) / max(others, seen.floor.sigma), 3.0, 10.0)
    one_size = ramp(spread / abs(shift), 1.0, 0.5) if shift else 0.0
    if far * one_size < 0.05:
        return None
    return Finding(
        0.95 * far * one_size,
        (
            Evidence(f"shift of the logit of token {MARKER}, nats", round(shift, 3), "0"),
            Evidence("size of the shift of other tokens, nats", round(others, 4), "as large"),
        ),
    )


LOGIT_BIAS = Cause(
    name="acme_logit_bias",
    title=f"Acme's gateway biases the logit of token {MARKER}",
    level="semantics",
    mechanism="The gateway adds logit_bias to every request, and the trainer does not.",
    signature="One token id differs by the same amount everywhere; the others hardly.",
    remedy="Send logit_bias: {} to the gateway, or add the bias to the trainer's logits.",
    next_control="Sample once past the gateway: the difference falls to the floor.",
    detect=detect,
    plot=trainer_on_rollout,
    page="https://wiki.acme.example/rl/logit-bias",
)
