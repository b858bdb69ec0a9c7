"""Long texts that are cut: |Δ| at every position, by server and trainer.

In: the shipped prompts as token ids. Out: texts, and a Profile at any length. Free of torch.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from driftscope_probes.diagnosis.controls.engine.onset import TEXTS
from driftscope_probes.diagnosis.controls.sides import LEAST_ROOM, Sequences, Tokens
from driftscope_probes.explain.server.client import ServerClient
from driftscope_probes.explain.server.measure import moved
from driftscope_probes.explain.server.trainer_side import ServerTrainer
from driftscope_probes.explain.server.truncation import Profile

#: Apart in the shipped text, so that no two texts hold the same tokens at the same position.
STRIDE: Final = 97


def texts_of(text: tuple[int, ...], longest: int) -> Tokens:
    """`text` repeated as needed; TEXTS of `longest` tokens that begin at different places."""
    repeats = -(-(longest + TEXTS * STRIDE) // len(text))
    whole = text * repeats
    return tuple(whole[index * STRIDE :][:longest] for index in range(TEXTS))


def cut(texts: Tokens, length: int) -> Sequences:
    """The first token of each as a prompt: it has no log-probability of its own."""
    return Sequences(tuple(text[:1] for text in texts), tuple(text[1:length] for text in texts))


def measured(client: ServerClient, trainer: ServerTrainer, texts: Tokens, length: int) -> Profile:
    """Raises ProbeError."""
    sequences = cut(texts, length)
    served = client.score(sequences, together=False)
    apart = moved(served.bits, trainer.score(sequences))
    where = np.concatenate(
        [np.arange(1, len(response) + 1, dtype=np.int64) for response in sequences.responses]
    )
    certain = -np.expm1(np.minimum(np.nan_to_num(served.logprobs, neginf=0.0), 0.0))
    return Profile(where, apart, np.maximum(certain, LEAST_ROOM))
