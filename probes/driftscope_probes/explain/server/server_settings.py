"""What a request can change about a server: does it change the numbers, and the gap?

In: the server, the trainer's values. Out: Tried, one per setting, and why others were left out.

Every setting is measured twice on the same tokens: the server against itself, which must agree up
to its own floor, and each against the trainer.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from driftscope_probes.diagnosis.controls.measurement import NotExercised
from driftscope_probes.diagnosis.controls.sides import Sequences, Tokens, gap_of
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO
from driftscope_probes.explain.server.client import Served, ServerClient
from driftscope_probes.explain.server.measure import common, effect, moved
from driftscope_probes.explain.server.report import Tried
from driftscope_probes.explain.server.request import ServerExplainRequest
from driftscope_probes.explain.server.trainer_side import ServerTrainer

#: Far enough from 1 that processed log-probabilities are nats away from raw ones.
TEMPERED: Final = 0.5
#: Decoded behind a long text, cold and warm.
BEHIND: Final = 16
#: Settings below: what significance is shared among.
SETTINGS: Final = 6


@dataclass(frozen=True, slots=True)
class Asked:
    """What the settings are tried on."""

    base: Served  # sampled together, on an empty prefix cache
    scored: Served | None  # the same tokens read as a prompt, alone; None: the server cannot
    texts: Tokens  # long ones
    floor: float  # sigma that rounding explains


class ServerSettings:
    def __init__(
        self,
        request: ServerExplainRequest,
        client: ServerClient,
        trainer: ServerTrainer,
        asked: Asked,
    ) -> None:
        self._request, self._client, self._trainer = request, client, trainer
        self._asked = asked

    def each(self) -> list[tuple[str, Callable[[], Tried]]]:
        """Name and measurement, cheap ones first; a measurement raises ProbeError, NotExercised."""
        return [
            ("prefill", self.prefill),
            ("beside others", self.alone),
            ("prefill beside others", self.prefill_beside),
            ("temperature", self.temperature),
            ("warm prefix cache", self.warm),
            ("chunk border", self.chunk),
        ]

    def prefill(self) -> Tried:
        scored = self._asked.scored
        if scored is None:
            raise _left("the server scores no prompt")
        says = "the sampled tokens read as a prompt, one request at a time, instead of decoded"
        return self._compared("prefill", says, self._asked.base, scored)

    def alone(self) -> Tried:
        sampling = self._request.sampling
        alone = self._client.sample(
            self._asked.base.sequences.prompts,
            sampling.max_tokens,
            temperature=sampling.temperature,
            together=False,
        )
        says = "every prompt sampled alone instead of beside the others"
        return self._compared("beside others", says, self._asked.base, alone)

    def prefill_beside(self) -> Tried:
        scored = self._asked.scored
        if scored is None:
            raise _left("the server scores no prompt")
        beside = self._client.score(scored.sequences, together=True)
        says = "the tokens read as prompts all together instead of one request at a time"
        return self._compared("prefill beside others", says, scored, beside)

    def temperature(self) -> Tried:
        """Of one and the same token: tempered by sampling, read as a prompt."""
        if self._asked.scored is None:
            raise _left("the server scores no prompt to hold it against")
        if self._request.logprobs_mode == "processed_logprobs":
            raise _left("processed log-probabilities are declared")
        prompts = self._asked.base.sequences.prompts
        length = self._request.sampling.max_tokens
        tempered = self._client.sample(prompts, length, temperature=TEMPERED)
        raw = self._client.score(tempered.sequences, together=False)
        says = (
            f"sampled at temperature {TEMPERED}; prompt_logprobs are raw whatever the temperature"
        )
        return self._compared("temperature", says, raw, tempered)

    def warm(self) -> Tried:
        prompts = tuple(text[: len(text) - BEHIND] for text in self._asked.texts)
        salt = uuid.uuid4().hex
        runs = [self._client.sample(prompts, BEHIND, temperature=0.0, salt=salt) for _ in range(2)]
        if runs[1].cached_tokens == 0:
            raise _left("the server took no token from its cache (it is off)")
        says = "decoded behind a long prompt that the prefix cache holds, instead of a cold one"
        return self._compared("warm prefix cache", says, runs[0], runs[1])

    def chunk(self) -> Tried:
        if self._asked.scored is None:
            raise _left("the server scores no prompt")
        texts = self._asked.texts
        whole = Sequences(tuple(text[:1] for text in texts), tuple(text[1:] for text in texts))
        alone = self._client.score(whole, together=False)
        beside = self._client.score(whole, together=True)
        says = "long prompts sent together, so that they share steps and are cut elsewhere"
        return self._compared("chunk border", says, alone, beside)

    def _compared(self, name: str, says: str, base: Served, changed: Served) -> Tried:
        mine, theirs = common(base.sequences, changed.sequences)
        if not mine.any():
            raise _left("no token was sampled alike with and without it")
        trainer_base = self._trainer.score(base.sequences)[mine]
        # Behind equal tokens the trainer's values are those of the same forward.
        before = moved(base.bits[mine], trainer_base)
        after = moved(changed.bits[theirs], trainer_base)
        found = effect(before, after, tried=SETTINGS)
        own = gap_of(base.bits[mine], changed.bits[theirs])
        return Tried(
            name=name,
            side="server",
            kind="setting",
            says=says,
            tokens=int(before.size),
            abs_diff_mean_before=found.before,
            abs_diff_mean_after=found.after,
            z=finite(found.z),
            needed=found.needed,
            effect=found.direction,
            own_sigma=own.sigma,
            own_equal_fraction=own.equal,
            consistent=own.sigma <= AT_FLOOR_UP_TO * self._asked.floor,
        )


def _left(reason: str) -> NotExercised:
    return NotExercised(reason, remedy="the report lists it as not tried.")


#: JSON has no infinity; a z that is one means: every token moved alike.
MOST_Z: Final = 1e6


def finite(z: float) -> float:
    return float(np.clip(z, -MOST_Z, MOST_Z))
