"""Whether server and trainer were asked the same thing, and how exactly the answer is sent.

In: the server, the folders, first answers. Out: Checks and Precision. Free of torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.controls.sides import Sequences
from driftscope_probes.explain.report import Check
from driftscope_probes.explain.server.client import ServerFacts
from driftscope_probes.explain.server.report import Precision
from driftscope_probes.models.folder import ModelFolder

#: Decimals behind which a float64 holds no more.
MOST_DECIMALS: Final = 17
#: A float32 between 0.5 and 8 takes 7 decimals or more in most cases; servers round to 6 at most.
ROUNDED_TO: Final = 6


def served_checks(facts: ServerFacts, model: ModelFolder, longest: int) -> list[Check]:
    """`longest`: tokens of the longest sequence that will be sent."""
    checks = [_same_model(facts, model)]
    length = facts.max_length
    if length is not None:
        fits = longest <= length
        says = f"sequences of up to {longest} tokens, the server takes {length}"
        checks.append(Check(what="longest sequence", equal=fits, says=says))
        if length > model.max_context:
            says = (
                f"the server takes {length} tokens, the model's folder says {model.max_context}: "
                "positions beyond it are not the model's own"
            )
            checks.append(Check(what="context of the model", equal=True, says=says))
    return checks


def _same_model(facts: ServerFacts, model: ModelFolder) -> Check:
    """A server may name its folder as it likes, so that another name is no fault."""
    root = facts.root or facts.model
    same = root in (model.name, str(model.path)) or _resolved(root) == model.path
    said = f"the server says it serves {root}"
    return Check(
        what="model",
        equal=True,
        says=f"{said}, which is {model.name}" if same else f"{said}; {model.name} was given",
    )


def _resolved(root: str) -> Path | None:
    path = Path(root)
    return path.resolve() if path.is_absolute() and path.is_dir() else None


def token_checks(sampled: Sequences, engine: ModelFolder, trainer: ModelFolder) -> list[Check]:
    """`sampled`: of the server. Vocabularies by what was sampled and what both folders say."""
    largest = max((max(one) for one in sampled.responses if one), default=0)
    smaller = min(engine.vocab_size, trainer.vocab_size)
    return [
        Check(
            what="token ids",
            equal=True,
            says="prompts are sent and responses read as token ids: nothing is tokenised twice",
        ),
        Check(
            what="vocabulary",
            equal=engine.vocab_size == trainer.vocab_size and largest < smaller,
            says=f"largest token sampled {largest}; {engine.vocab_size} tokens in the engine's "
            f"folder, {trainer.vocab_size} in the trainer's",
        ),
    ]


def scoring_check(reason: str | None) -> Check:
    """`reason`: why the server does not score a prompt; None: it does."""
    says = "the server scores the tokens of a prompt (prompt_logprobs)"
    return Check(
        what="prompt_logprobs",
        equal=reason is None,
        says=says if reason is None else f"the server scores no prompt: {reason}",
    )


def precision_of(values: NDArray[np.float64]) -> Precision:
    """[tokens] as sent."""
    finite = values[np.isfinite(values)]
    exact = finite.astype(np.float32).astype(np.float64) == finite
    # What is printed with the fewest digits that give a float32 back is exact too; it has more
    # decimals than anybody rounds to.
    shortest = np.array([float(str(np.float32(value))) == value for value in finite], np.bool_)
    decimals = _decimals(finite)
    lossless = exact | shortest if decimals > ROUNDED_TO else exact
    fraction = float(np.mean(lossless)) if finite.size else 0.0
    if fraction == 1.0:
        return Precision(
            values=values.size,
            float32_fraction=1.0,
            resolution=0.0,
            sentence="Log-probabilities come as decimals that give back every bit of a float32.",
        )
    resolution = 10.0**-decimals
    return Precision(
        values=values.size,
        float32_fraction=fraction,
        resolution=resolution,
        sentence=f"The server rounds its log-probabilities: {1 - fraction:.0%} are no float32 "
        f"numbers, and differences below about {resolution:.0e} nats are unseen. Equal bits "
        "cannot be claimed.",
    )


def _decimals(values: NDArray[np.float64]) -> int:
    """The most decimals that any value has."""
    for decimals in range(MOST_DECIMALS):
        if np.all(np.round(values, decimals) == values):
            return decimals
    return MOST_DECIMALS
