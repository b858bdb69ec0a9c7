"""NeMo-RL's train_data_stepN.jsonl (one sequence per line) → PushedStep.

In: whole sequences, padded on the right, with the log-probability of each token at its own place.
Out: PushedStep from each sequence's first to its last trained token. Source: NeMo-RL,
nemo_rl/algorithms/grpo.py (log_data).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.json_step import float_column, integer_column, mask_column, parse_object
from driftscope_probes.push.pushed_step import PushedStep, pushed_step, response_span
from driftscope_probes.push.readers.records import check_size, lines_of
from driftscope_probes.push.rules import SCHEMA_VERSION, PushError, checked_metadata

FRAMEWORK = "nemo-rl"
#: Ours and theirs, [tokens] each.
NEEDED: Final = {
    "rollout_logprobs": "generation_logprobs",
    "trainer_logprobs": "prev_logprobs",
    "mask": "token_loss_mask",
    "token_ids": "token_ids",
}
SAMPLE_MASK, ADVANTAGES = "sample_loss_mask", "advantages"
STEP_IN_NAME = re.compile(r"step_?(\d{1,9})")

Columns = dict[str, NDArray[Any]]


def recognised(record: Mapping[str, Any]) -> bool:
    return {"generation_logprobs", "prev_logprobs"} <= record.keys()


def read_nemo_rl(path: Path) -> PushedStep:
    sequences: list[Columns] = []
    tokens = 0
    with path.open("rb") as stream:
        for number, line in lines_of(stream):
            sequences.append(_sequence(parse_object(line, f"line {number}"), f"line {number}"))
            tokens += sequences[-1]["rollout_logprobs"].size
            check_size(tokens, len(sequences), f"line {number}")
    if not sequences:
        raise PushError("it holds no line.", remedy="give a train_data_stepN.jsonl of NeMo-RL.")
    names = set.intersection(*(set(one) for one in sequences))
    joined = {name: np.concatenate([one[name] for one in sequences]) for name in names}
    lengths = [one["rollout_logprobs"].size for one in sequences]
    joined["cu_seqlens"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    metadata = {"schema_version": SCHEMA_VERSION, "framework": FRAMEWORK}
    if named := STEP_IN_NAME.search(path.stem):
        metadata["step"] = named.group(1)
    return pushed_step(joined, checked_metadata(metadata))


def _sequence(record: Mapping[str, Any], where: str) -> Columns:
    """[tokens] of the trained span, and the prompt's length as [1]."""
    columns = _columns(record, where)
    trained = columns["mask"]
    if not _sample_counts(record, where):
        columns["mask"] = np.zeros(trained.size, np.bool_)
    # A sample that does not count keeps its length: its tokens are there, masked.
    span = response_span(trained, np.array([0, trained.size], dtype=np.int64))
    kept = {name: column[span.keep] for name, column in columns.items()}
    prompt = int(np.argmax(span.keep)) if span.keep.any() else trained.size
    return {**kept, "prompt_lengths": np.array([prompt], np.int32)}


def _columns(record: Mapping[str, Any], where: str) -> Columns:
    missing = [theirs for theirs in NEEDED.values() if theirs not in record]
    if missing:
        raise PushError(
            f"{where} has no {missing[0]}.",
            remedy="give a train_data_stepN.jsonl as NeMo-RL writes it, whole.",
        )
    columns: Columns = {}
    for ours, theirs in NEEDED.items():
        label, values = f"{where}: {theirs}", record[theirs]
        if ours == "mask":
            columns[ours] = mask_column(label, _whole(values))
        elif ours == "token_ids":
            columns[ours] = integer_column(label, values, np.int32)
        else:
            columns[ours] = float_column(label, values)
    advantages = record.get(ADVANTAGES)
    if isinstance(advantages, int | float):
        advantages = [advantages] * columns["mask"].size
    if advantages is not None:
        columns["advantages"] = float_column(f"{where}: {ADVANTAGES}", advantages)
    expected = columns["token_ids"].size
    for name, column in columns.items():
        if column.size != expected:
            raise PushError(
                f"{where}: {NEEDED.get(name, name)} has {column.size} values, token_ids has "
                f"{expected}.",
                remedy="give a train_data_stepN.jsonl as NeMo-RL writes it, whole.",
            )
    return columns


def _sample_counts(record: Mapping[str, Any], where: str) -> bool:
    value = record.get(SAMPLE_MASK, 1)
    return bool(mask_column(f"{where}: {SAMPLE_MASK}", _whole([value]))[0])


def _whole(values: object) -> object:
    """NeMo-RL writes masks as floats: 1.0 is 1."""
    if not isinstance(values, list):
        return values
    return [int(one) if isinstance(one, float) and one in (0.0, 1.0) else one for one in values]
