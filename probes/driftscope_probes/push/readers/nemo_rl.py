"""NeMo-RL's train_data_stepN.jsonl (one sequence per line) → PushedStep.

In: whole sequences, padded on the right, with the log-probability of each token at its own place.
Out: PushedStep from each sequence's first to its last trained token. Source: NeMo-RL,
nemo_rl/algorithms/grpo.py (log_data, log_batched_dict_as_jsonl) as of October 2026; older ones
wrote neither masks nor ids.
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
from driftscope_probes.push.readers.records import check_size, lines_of, samples_of
from driftscope_probes.push.rules import SCHEMA_VERSION, PushError, checked_metadata

FRAMEWORK = "nemo-rl"
#: Ours and theirs, [tokens] each.
NEEDED: Final = {"rollout_logprobs": "generation_logprobs", "trainer_logprobs": "prev_logprobs"}
#: Not in older logs, which have the two above, input_lengths, rewards and content only.
LATER: Final = {"mask": "token_loss_mask", "token_ids": "token_ids"}
SAMPLE_MASK, ADVANTAGES, LENGTHS = "sample_loss_mask", "advantages", "input_lengths"
STEP_IN_NAME = re.compile(r"step_?(\d{1,9})")

Columns = dict[str, NDArray[Any]]


def recognised(record: Mapping[str, Any]) -> bool:
    return {"generation_logprobs", "prev_logprobs"} <= record.keys()


def read_nemo_rl(path: Path) -> PushedStep:
    sequences: list[Columns] = []
    tokens = 0
    with path.open("rb") as stream:
        for number, line in lines_of(stream):
            whole = parse_object(line, f"line {number}")
            first = NEEDED["rollout_logprobs"]
            for where, record in samples_of(f"line {number}", whole, first):
                sequences.append(_sequence(record, where))
                tokens += sequences[-1]["rollout_logprobs"].size
                check_size(tokens, len(sequences), where)
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
    for ours, theirs in (NEEDED | LATER).items():
        if theirs not in record:
            continue
        label, values = f"{where}: {theirs}", record[theirs]
        if ours == "mask":
            columns[ours] = mask_column(label, values)
        elif ours == "token_ids":
            columns[ours] = integer_column(label, values, np.int32)
        else:
            columns[ours] = float_column(label, values)
    advantages = record.get(ADVANTAGES)
    if isinstance(advantages, list) and len(advantages) == 1:
        advantages = advantages[0]  # one for the sequence, [samples, 1]
    if isinstance(advantages, int | float):
        advantages = [advantages] * columns["rollout_logprobs"].size
    if advantages is not None:
        columns["advantages"] = float_column(f"{where}: {ADVANTAGES}", advantages)
    first = "token_ids" if "token_ids" in columns else "rollout_logprobs"
    for name, column in columns.items():
        if column.size != columns[first].size:
            raise PushError(
                f"{where}: {(NEEDED | LATER).get(name, name)} has {column.size} values, "
                f"{(NEEDED | LATER)[first]} has {columns[first].size}.",
                remedy="give a train_data_stepN.jsonl as NeMo-RL writes it, whole.",
            )
    if "mask" not in columns:
        columns["mask"] = _sampled(record, columns["rollout_logprobs"], where)
    return columns


def _sampled(
    record: Mapping[str, Any], rollout: NDArray[np.float32], where: str
) -> NDArray[np.bool_]:
    """Without a mask: the engine's side is exactly 0 in prompts, and padding is past the length."""
    length = record.get(LENGTHS, rollout.size)
    if type(length) is not int or not 0 <= length <= rollout.size:
        raise PushError(
            f"{where}: {LENGTHS} is {str(length)[:40]}, and there is no token_loss_mask.",
            remedy="give a train_data_stepN.jsonl as NeMo-RL writes it, whole.",
        )
    sampled: NDArray[np.bool_] = (rollout != 0) & (np.arange(rollout.size) < length)
    return sampled


def _sample_counts(record: Mapping[str, Any], where: str) -> bool:
    value = record.get(SAMPLE_MASK, 1)
    return bool(mask_column(f"{where}: {SAMPLE_MASK}", [value])[0])
