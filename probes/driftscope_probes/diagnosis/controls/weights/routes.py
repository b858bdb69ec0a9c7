"""Control routes_replayed: the trainer's forward through the engine's experts.

The engine reads the responses as a prompt, one sequence at a time, with hooks on its routers; the
trainer scores the same tokens with that choice forced upon its own routers.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import EXPLAINS_FROM, Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import Sequences, TrainerChange, gap_of

QUIET: Final = TrainerChange(quiet=True)
#: Of the difference. A healthy bf16 pair of tiny mixtures keeps 0.67 of it (vLLM and transformers);
#: a router whose logits are rounded to a quarter 0.20: the weights of the experts stay rounded.
LEFT_UP_TO: Final = 0.35


def _run(bench: Bench) -> Measurement:
    sampled = bench.sample().sequences
    pairs = [pair for pair in zip(sampled.prompts, sampled.responses, strict=True) if pair[1]]
    if not pairs:
        raise NotExercised("every response is empty.", remedy="let the engine sample a token.")
    sequences = Sequences(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))
    routed = bench.routed(sequences)
    as_it_is = gap_of(routed.logprobs, bench.score(sequences, QUIET))
    if as_it_is.sigma < EXPLAINS_FROM * bench.base.sigma:
        raise NotExercised(
            f"read as a prompt the responses differ by sigma {as_it_is.sigma:.2g}, of "
            f"{bench.base.sigma:.2g} as they were sampled: the experts are not what it is about.",
            remedy="compare decoding with reading: control decode_reprefill.",
        )
    replayed = gap_of(routed.logprobs, bench.score_routed(sequences, routed, QUIET))
    bound = LEFT_UP_TO * as_it_is.sigma
    layers, used = routed.routes[0].shape[1:]
    return Measurement(
        "clean" if replayed.sigma <= bound else "dirty",
        "sigma, the trainer through the engine's experts",
        replayed.sigma,
        f"up to {bound:.2g}",
        (
            Evidence(
                "sigma, each side through its own experts",
                float(f"{as_it_is.sigma:.3g}"),
                "the same tokens, read as a prompt",
            ),
            Evidence(
                "choices replayed",
                int(np.sum([route.size for route in routed.routes])),
                f"{used} experts in {layers} layers for every token",
            ),
        ),
    )


ROUTES_REPLAYED = Control(
    name="routes_replayed",
    title="Force the engine's experts upon the trainer",
    separates="Tokens that take other experts on the two sides from every fault that is there with "
    "the same experts.",
    null="Rounding turns few routes: a healthy pair of tiny mixtures keeps sigma 0.030 of 0.044 in "
    "bf16, all of 1.4e-6 in fp32.",
    cost_s=2.0,
    positive="clean",
    points_to={"moe_routing_flip": 0.95, "router_precision": 0.9, "router_replay_corrupt": 0.8},
    needs=frozenset({"mixture_of_experts"}),
    run=_run,
)
