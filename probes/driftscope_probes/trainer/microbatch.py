"""How sequences share a forward pass: alone, padded to a rectangle, or packed into one row.

In: prompts, the rollout's tokens, settings. Out: MicroBatch values that cover the sequences in
order, each with the index that finds every response token's hidden state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from driftscope_probes.errors import TrainerError
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace
from driftscope_probes.trainer.settings import TrainerSettings

#: Any valid id: attention masks it, and no row of its hidden state is used.
PAD_TOKEN = 0

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass. `rows` follows the order of `tokens`: sequence by sequence."""

    tokens: slice  # which tokens of the trace are scored
    input_ids: Tensor  # int64 [batch, length]
    attention_mask: Tensor | None  # int64 [batch, length]; None where nothing is padded
    position_ids: Tensor  # int64 [batch, length], from 0 in every sequence
    rows: Tensor  # int64 [tokens scored], into the hidden states flattened to [batch * length]
    targets: Tensor  # int64 [tokens scored]

    @property
    def key(self) -> bytes:
        """Equal keys give the same numbers from the same model in the same mode."""
        parts = [self.input_ids, self.position_ids, self.rows]
        if self.attention_mask is not None:
            parts.append(self.attention_mask)
        shape = str([tuple(part.shape) for part in parts]).encode()
        return shape + b"".join(part.numpy().tobytes() for part in parts)


@dataclass(frozen=True, slots=True)
class _Sequence:
    prompt: int  # tokens of it
    ids: Ids  # prompt and response


def micro_batches(
    prompts: PromptBatch, rollout: Trace, settings: TrainerSettings
) -> Iterator[MicroBatch]:
    """`settings.micro_batch` sequences per pass, in the rollout's order.

    Raises TrainerError when prompts and rollout do not belong together.
    """
    _check(prompts, rollout)
    for first in range(0, rollout.sequences, settings.micro_batch):
        last = min(first + settings.micro_batch, rollout.sequences)
        tokens = slice(int(rollout.cu_seqlens[first]), int(rollout.cu_seqlens[last]))
        if tokens.start == tokens.stop:
            continue  # only empty responses: nothing to score
        sequences = [_sequence(prompts, rollout, index) for index in range(first, last)]
        targets = torch.from_numpy(rollout.token_ids[tokens].astype(np.int64))
        if len(sequences) == 1 or settings.batching == "packed":
            yield _packed(tokens, sequences, targets)
        else:
            yield _padded(tokens, sequences, targets, left=settings.padding_side == "left")


def input_tokens(prompts: PromptBatch, rollout: Trace, sequences: int | None = None) -> int:
    """Tokens that forward passes over the first `sequences` (None: all) read, padding aside."""
    last = rollout.sequences if sequences is None else min(sequences, rollout.sequences)
    return int(prompts.cu_seqlens[last] + rollout.cu_seqlens[last])


def _check(prompts: PromptBatch, rollout: Trace) -> None:
    if len(prompts) != rollout.sequences:
        raise TrainerError(
            f"{rollout.sequences} rollouts came for {len(prompts)} prompts.",
            remedy="score a rollout with the very prompts it was drawn from.",
        )
    empty = np.flatnonzero(np.diff(prompts.cu_seqlens) == 0)
    if empty.size:
        raise TrainerError(
            f"prompt {int(empty[0])} has no tokens, so that nothing predicts its first response "
            "token.",
            remedy="give every prompt at least one token, for example the start token.",
        )


def _sequence(prompts: PromptBatch, rollout: Trace, index: int) -> _Sequence:
    prompt = prompts.ids(index)
    response = rollout.token_ids[rollout.sequence(index)]
    return _Sequence(len(prompt), np.concatenate([np.array(prompt, np.int64), response]))


def _predicting_rows(sequence: _Sequence, offset: int) -> Ids:
    """The hidden state at position t predicts token t + 1; `offset` is where position 0 lies."""
    return offset + np.arange(sequence.prompt - 1, sequence.ids.size - 1)


def _packed(tokens: slice, sequences: list[_Sequence], targets: Tensor) -> MicroBatch:
    """One row; transformers masks across boundaries where position ids fall back to 0.

    It looks for boundaries only when no attention mask is given (`find_packed_sequence_indices`).
    """
    starts = np.cumsum([0] + [sequence.ids.size for sequence in sequences])
    positions = np.concatenate([np.arange(sequence.ids.size) for sequence in sequences])
    rows = map(_predicting_rows, sequences, starts.tolist())
    return MicroBatch(
        tokens,
        torch.from_numpy(np.concatenate([sequence.ids for sequence in sequences]))[None],
        None,
        torch.from_numpy(positions)[None],
        torch.from_numpy(np.concatenate(list(rows))),
        targets,
    )


def _padded(
    tokens: slice, sequences: list[_Sequence], targets: Tensor, *, left: bool
) -> MicroBatch:
    length = max(sequence.ids.size for sequence in sequences)
    shape = (len(sequences), length)
    ids, mask = np.full(shape, PAD_TOKEN, np.int64), np.zeros(shape, np.int64)
    rows: list[Ids] = []
    for index, sequence in enumerate(sequences):
        start = length - sequence.ids.size if left else 0
        filled = slice(start, start + sequence.ids.size)
        ids[index, filled], mask[index, filled] = sequence.ids, 1
        rows.append(_predicting_rows(sequence, index * length + start))
    # Positions count real tokens only (verl compute_position_id_with_mask); padding gets any.
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    return MicroBatch(
        tokens,
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        torch.from_numpy(positions),
        torch.from_numpy(np.concatenate(rows)),
        targets,
    )
