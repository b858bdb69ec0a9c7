"""Parts of a step's token file: two log-probabilities and the mask in blocks, or one sequence.

In: a file of `write_tokens`. Out: blocks with what profiles run along, so that a large step is
never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.tokens import SEQUENCE_LABELS, Extras, Tokens
from driftscope_service.runs.store.token_files import TokenFileError

COLUMNS = ("rollout_logprobs", "trainer_logprobs", "mask")
#: What profiles run along, where it was pushed.
TOKEN_PROFILES = ("position_ids", "turn_ids")
SEQUENCE_PROFILES = ("rank", "replica", "environment")
#: About a megabyte per column in float64: what works on a block stays in the cache of a core.
BLOCK_TOKENS = 2**17
#: What a damaged file may raise, as in read_tokens.
_DAMAGED = (pa.ArrowException, OSError, LookupError, TypeError, ValueError)


#: Neighbouring sequences of one step, and the index of the first one in the step.
TokenBlock: TypeAlias = tuple[Tokens, int]


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


def file_sequence(path: Path, sequence: int) -> Tokens:
    """With its token ids and labels, where they were pushed.

    Raises IndexError where the step has no such sequence, and as file_blocks.
    """
    with path.open("rb") as file:
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            first = _first_sequences(parquet)
            outside = not 0 <= sequence < first[-1]
            group = int(np.searchsorted(first, sequence, side="right")) - 1
            wanted = (*COLUMNS, "token_ids", *SEQUENCE_LABELS)
            names = [name for name in wanted if name in parquet.schema_arrow.names]
            if not outside:
                table = parquet.read_row_group(group, columns=names, use_threads=False)
                table = table.slice(sequence - first[group], 1)
        except _DAMAGED as error:
            raise TokenFileError(f"{path.name} is damaged: {error}") from error
    if outside:
        raise IndexError(sequence)
    rollout, trainer, mask = (_flat(table, name) for name in COLUMNS)
    known = {name: table.column(name).to_numpy() for name in names if name in SEQUENCE_LABELS}
    if "token_ids" in names:
        known["token_ids"] = _flat(table, "token_ids")
    return _one_sequence(rollout, trainer, mask, Extras(**known))


def step_sequence(step: PushedStep, sequence: int) -> Tokens:
    if not 0 <= sequence < step.sequences:
        raise IndexError(sequence)
    tokens = step.sequence(sequence)
    labels = {
        name: values[sequence : sequence + 1]
        for name in SEQUENCE_LABELS
        if (values := getattr(step.extras, name)) is not None
    }
    ids = step.extras.token_ids
    extras = Extras(token_ids=None if ids is None else ids[tokens], **labels)
    return _one_sequence(step.rollout[tokens], step.trainer[tokens], step.mask[tokens], extras)


def _one_sequence(
    rollout: NDArray[np.float32],
    trainer: NDArray[np.float32],
    mask: NDArray[np.bool_],
    extras: Extras,
) -> Tokens:
    return Tokens(rollout, trainer, np.array([0, mask.size]), mask, extras)


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
    known = parquet.schema_arrow.names
    columns = [*COLUMNS, *(n for n in (*TOKEN_PROFILES, *SEQUENCE_PROFILES) if n in known)]
    for batch in parquet.iter_batches(
        per_block, row_groups=[group], columns=columns, use_threads=False
    ):
        rollout, trainer, mask = (_values(batch.column(name)) for name in COLUMNS)
        lengths = batch.column(COLUMNS[0]).value_lengths().to_numpy()
        limits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        yield Tokens(rollout, trainer, limits, mask, _profiled(batch)), sequence
        sequence += batch.num_rows


def _profiled(batch: pa.RecordBatch) -> Extras:
    names = batch.schema.names
    known: dict[str, Any] = {n: _values(batch.column(n)) for n in TOKEN_PROFILES if n in names}
    for name in SEQUENCE_PROFILES:
        if name in names:
            known[name] = batch.column(name).to_numpy()
    return Extras(**known)


def _flat(table: pa.Table, name: str) -> NDArray[Any]:
    return _values(table.column(name).combine_chunks())


def _values(lists: pa.ListArray) -> NDArray[Any]:
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False))
