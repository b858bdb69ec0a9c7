"""Three runs to look at: one that is healthy, one that drifts from a step on, one that is broken.

In: the number of a step. Out: the tensors and metadata of a push. Seeded: the same every time.
Shaped like the real thing: most tokens are certain, Δ grows with a token's surprise, BF16-sized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

STEPS = 36
SEQUENCES = 16
#: Spread of Δ for a token of one nat surprise; healthy BF16 pairs have 0.045 to 0.06 over all.
SPREAD = 0.05
#: Of the run with routes: a small mixture of experts.
LAYERS, EXPERTS, CHOSEN = 12, 32, 4
#: Spread of router logits after rounding, of 1; near ties flip.
ROUTER_SPREAD = 0.01
#: Ids that every tokenizer has.
TEXT = tuple(range(200))
MEDIA_TYPE = "application/vnd.safetensors"


@dataclass(frozen=True, slots=True)
class PageRun:
    name: str
    #: Δ is so many times what it is in a healthy run.
    factor: float = 1.0
    from_step: int = 0
    #: So many tokens on which one side has no finite number.
    nonfinite: int = 0
    #: Experts are recorded on both sides; from_step on, replay is broken after so many tokens.
    replayed_until: int | None = None


HEALTHY = PageRun("healthy")
DRIFTING = PageRun("drifting", factor=1.5, from_step=24)
BROKEN = PageRun("broken", factor=14.0, from_step=28, nonfinite=3, replayed_until=64)
RUNS = (HEALTHY, DRIFTING, BROKEN)


def step_tensors(run: PageRun, step: int, *, text: Sequence[int] = TEXT) -> dict[str, NDArray[Any]]:
    """`text`: token ids that responses are cut from."""
    random = np.random.default_rng([len(run.name), step])
    lengths = random.integers(40, 220, SEQUENCES)
    tokens = int(lengths.sum())
    surprise = np.where(random.random(tokens) < 0.6, 1e-3, 1.0) * random.exponential(1.0, tokens)
    moved = step >= run.from_step
    spread = SPREAD * np.sqrt(surprise + 1e-3) * (run.factor if moved else 1.0)
    rollout = -surprise
    trainer = np.minimum(rollout + random.normal(0.0, spread), 0.0)
    if moved and run.nonfinite:
        trainer[random.choice(tokens, run.nonfinite, replace=False)] = np.nan
    until = run.replayed_until
    return {
        **({} if until is None else _routes(run, step, lengths, until)),
        "rollout_logprobs": rollout.astype(np.float32),
        "trainer_logprobs": trainer.astype(np.float32),
        "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "token_ids": np.resize(np.roll(text, -7 * step), tokens).astype(np.int32),
    }


def _routes(
    run: PageRun, step: int, lengths: NDArray[np.int64], until: int
) -> dict[str, NDArray[Any]]:
    """After so many tokens of a sequence the trainer replays the routes of others."""
    random = np.random.default_rng([len(run.name), step, EXPERTS])
    tokens = int(lengths.sum())
    logits = random.standard_normal((tokens, LAYERS, EXPERTS))
    rounded = logits + random.normal(0.0, ROUTER_SPREAD, logits.shape)
    rollout, trainer = (
        np.argsort(-side, axis=-1)[..., :CHOSEN].astype(np.uint8) for side in (logits, rounded)
    )
    if step >= run.from_step:
        place = np.arange(tokens) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        late = place >= until
        trainer[late] = np.roll(trainer[late], tokens // 3, axis=0)
    return {"routed_experts": rollout, "trainer_routed_experts": trainer}


def push_runs(client: httpx.Client, *, model: str, text: Sequence[int] = TEXT) -> None:
    """All three, through the API."""
    for run in RUNS:
        for step in range(STEPS):
            body = save(step_tensors(run, step, text=text), metadata(model))
            answer = client.post(
                f"/v1/runs/{run.name}/steps/{step}/logprobs",
                content=body,
                headers={"content-type": MEDIA_TYPE},
            )
            answer.raise_for_status()


def metadata(model: str) -> dict[str, str]:
    return {
        "model": model,
        "framework": "trl",
        "engine": "vllm 0.32.0",
        "rollout_dtype": "bf16",
        "trainer_dtype": "bf16",
    }
