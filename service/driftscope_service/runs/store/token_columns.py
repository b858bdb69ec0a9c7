"""Parts of a step's token file: two log-probabilities and the mask in blocks, or one sequence.

In: a file of `write_tokens`. Out: blocks, so that a large step is never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from driftscope_probes.push.pushed_step import PushedStep
from driftscope_service.runs.store.token_files import TokenFileError

COLUMNS = ("rollout_logprobs", "trainer_logprobs", "mask")
#: About a megabyte per column in float64: what works on a block stays in the cache of a core.
BLOCK_TOKENS = 2**17
#: What a damaged file may raise, as in read_tokens.
_DAMAGED = (pa.ArrowException, OSError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True, eq=False)
class TokenBlock:
    """Neighbouring sequences of one step."""

    rollout: NDArray[np.float32]  # [tokens], nats
    trainer: NDArray[np.float32]  # [tokens], nats
    mask: NDArray[np.bool_]  # [tokens]
    cu_seqlens: NDArray[np.int64]  # [sequences + 1], from 0
    first_sequence: int  # number of the first one in the step


@dataclass(frozen=True, slots=True, eq=False)
class SequenceTokens:
    rollout: NDArray[np.float32]  # [tokens], nats
    trainer: NDArray[np.float32]  # [tokens], nats
    mask: NDArray[np.bool_]  # [tokens]
    token_ids: NDArray[np.int32] | None  # [tokens]


def file_blocks(path: Path, most_tokens: int) -> Iterator[TokenBlock]:
    """Blocks of every row group, or of evenly spaced ones with about `most_tokens` in total.
    Raises FileNotFoundError, or TokenFileError if the file is damaged."""
    with path.open("rb") as file:
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            first = _first_sequences(parquet)
            for group in _chosen(parquet, most_tokens):
                yield from _group_blocks(parquet, group, first[group])
        except _DAMAGED as error:
            raise TokenFileError(f"{path.name} is damaged: {error}") from error


def file_sequence(path: Path, sequence: int) -> SequenceTokens:
    """Raises IndexError where the step has no such sequence, and as file_blocks."""
    with path.open("rb") as file:
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            first = _first_sequences(parquet)
            outside = not 0 <= sequence < first[-1]
            group = int(np.searchsorted(first, sequence, side="right")) - 1
            names = [name for name in (*COLUMNS, "token_ids") if name in parquet.schema_arrow.names]
            if not outside:
                table = parquet.read_row_group(group, columns=names, use_threads=False)
                table = table.slice(sequence - first[group], 1)
        except _DAMAGED as error:
            raise TokenFileError(f"{path.name} is damaged: {error}") from error
    if outside:
        raise IndexError(sequence)
    rollout, trainer, mask = (_flat(table, name) for name in COLUMNS)
    ids = _flat(table, "token_ids") if "token_ids" in names else None
    return SequenceTokens(rollout, trainer, mask, ids)


def step_block(step: PushedStep) -> TokenBlock:
    """A step in memory, as one block."""
    return TokenBlock(step.rollout_logprobs, step.trainer_logprobs, step.mask, step.cu_seqlens, 0)


def step_sequence(step: PushedStep, sequence: int) -> SequenceTokens:
    if not 0 <= sequence < step.sequences:
        raise IndexError(sequence)
    tokens = step.sequence(sequence)
    ids = None if step.token_ids is None else step.token_ids[tokens]
    return SequenceTokens(
        step.rollout_logprobs[tokens], step.trainer_logprobs[tokens], step.mask[tokens], ids
    )


def _first_sequences(parquet: pq.ParquetFile) -> list[int]:
    """First sequence of each row group, then the total number."""
    metadata = parquet.metadata
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return [0, *np.cumsum(rows).tolist()]


def _chosen(parquet: pq.ParquetFile, most_tokens: int) -> list[int]:
    groups = parquet.metadata.num_row_groups
    # The first column counts values: one per token, and one per empty sequence.
    tokens = sum(parquet.metadata.row_group(group).column(0).num_values for group in range(groups))
    if tokens <= most_tokens:
        return list(range(groups))
    keep = max(1, groups * most_tokens // tokens)
    return sorted({group * groups // keep for group in range(keep)})


def _group_blocks(parquet: pq.ParquetFile, group: int, sequence: int) -> Iterator[TokenBlock]:
    """`sequence`: the first of the group."""
    rows = parquet.metadata.row_group(group)
    per_block = max(1, rows.num_rows * BLOCK_TOKENS // max(1, rows.column(0).num_values))
    for batch in parquet.iter_batches(
        per_block, row_groups=[group], columns=list(COLUMNS), use_threads=False
    ):
        rollout, trainer, mask = (_values(batch.column(name)) for name in COLUMNS)
        lengths = batch.column(COLUMNS[0]).value_lengths().to_numpy()
        limits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        yield TokenBlock(rollout, trainer, mask, limits, sequence)
        sequence += batch.num_rows


def _flat(table: pa.Table, name: str) -> NDArray[Any]:
    return _values(table.column(name).combine_chunks())


def _values(lists: pa.ListArray) -> NDArray[Any]:
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False))
