"""prime-rl's token export (JSONL, one sequence per line, schema 1) → PushedStep.

In: `token_exports/step_N/rank_R.jsonl`. Out: PushedStep of that rank, from each sequence's first to
its last trained token. Source: prime-rl, src/prime_rl/trainer/rl/token_export.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.json_step import float_column, integer_column, mask_column, parse_object
from driftscope_probes.push.pushed_step import PushedStep, pushed_step, response_span
from driftscope_probes.push.readers.records import check_size, lines_of
from driftscope_probes.push.rules import (
    ENVIRONMENTS,
    SCHEMA_VERSION,
    PushError,
    checked_metadata,
)

EXPORT_SCHEMA_VERSION = 1
FRAMEWORK = "prime-rl"
#: Our names and theirs. Everything else in a line is derived from these or describes the run.
NEEDED = {
    "rollout_logprobs": "inference_logprobs",
    "trainer_logprobs": "trainer_logprobs",
    "mask": "loss_mask",
    "token_ids": "token_ids",
}
OPTIONAL = ("advantages", "entropy", "position_ids")
#: What a sequence is said to come from where prime-rl names no environment for it.
UNNAMED = "unknown"

Columns = dict[str, NDArray[Any]]


def recognised(record: Mapping[str, Any]) -> bool:
    """Its own schema, or both sides under its names: another version of it is said as such."""
    return "inference_logprobs" in record and ("schema_version" in record or "loss_mask" in record)


@dataclass(frozen=True, slots=True)
class ExportedSequence:
    columns: Columns  # [tokens], of the trained span, and [1] per label of the sequence
    tokens: int
    environment: str | None  # None: an older export, which names none at all


def read_prime_rl_export(path: Path) -> PushedStep:
    """Non-finite values are null in the export and become NaN here."""
    steps: set[int] = set()
    sequences: list[ExportedSequence] = []
    tokens = 0
    with path.open("rb") as stream:
        for number, line in lines_of(stream):
            record = parse_object(line, f"line {number}")
            steps.add(_step(record, number))
            sequences.append(_sequence(record, number))
            tokens += sequences[-1].tokens
            check_size(tokens, len(sequences), f"line {number}")
    if len(steps) != 1:
        raise PushError(
            f"it holds {len(steps)} steps; one is accepted.",
            remedy="give the rank_R.jsonl of one step.",
        )
    metadata = {"schema_version": SCHEMA_VERSION, "framework": FRAMEWORK, "step": str(steps.pop())}
    columns, environments = _joined(sequences), _environments(sequences)
    if environments:
        index = [environments.index(str(one.environment)) for one in sequences]
        columns["environment"] = np.array(index, np.int32)
        metadata[ENVIRONMENTS] = ",".join(environments)
    return pushed_step(columns, checked_metadata(metadata))


def _step(record: dict[str, Any], number: int) -> int:
    version = record.get("schema_version")
    if version != EXPORT_SCHEMA_VERSION:
        raise PushError(
            f"line {number} has schema_version {str(version)[:80]}, this program reads "
            f"{EXPORT_SCHEMA_VERSION}.",
            remedy="give a rank_R.jsonl from prime-rl's token_exports folder.",
        )
    # One step of the run may be trained in several trainer steps; export_step is the run's.
    step = record.get("export_step", record.get("step"))
    if type(step) is not int:
        raise PushError(
            f"line {number} names no step.", remedy="give a file that prime-rl wrote, whole."
        )
    return step


def _columns(record: dict[str, Any], number: int) -> Columns:
    missing = [theirs for theirs in NEEDED.values() if theirs not in record]
    if missing:
        raise PushError(
            f"line {number} has no {missing[0]}.",
            remedy="give a rank_R.jsonl from prime-rl's token_exports folder.",
        )
    columns: Columns = {}
    for ours, theirs in (*NEEDED.items(), *((name, name) for name in OPTIONAL)):
        values, label = record.get(theirs), f"line {number}: {theirs}"
        if values is None:
            continue
        if ours == "mask":
            columns[ours] = mask_column(label, values)
        elif ours.endswith("_ids"):
            columns[ours] = integer_column(label, values, np.int32)
        else:
            columns[ours] = float_column(label, values)
    lengths = {name: column.size for name, column in columns.items()}
    if not set(NEEDED) <= lengths.keys() or len(set(lengths.values())) != 1:
        raise PushError(
            f"line {number} has columns of different lengths: {lengths}.",
            remedy="give a file that prime-rl wrote, whole.",
        )
    return columns


def _sequence(record: dict[str, Any], number: int) -> ExportedSequence:
    columns = _columns(record, number)
    mask = columns["mask"]
    span = response_span(mask, np.array([0, mask.size], dtype=np.int64))
    trained = {name: column[span.keep] for name, column in columns.items()}
    # A line is one whole sequence: what comes before its first trained token is the prompt.
    prompt = int(np.argmax(span.keep)) if span.keep.any() else mask.size
    trained["prompt_lengths"] = np.array([prompt], np.int32)
    if record.get("rank") is not None:
        trained["rank"] = integer_column(f"line {number}: rank", [record["rank"]], np.int32)
    return ExportedSequence(trained, int(span.cu_seqlens[-1]), _environment(record, number))


def _environment(record: dict[str, Any], number: int) -> str | None:
    if "env_name" not in record:
        return None
    name = record["env_name"]
    if not isinstance(name, str | None):
        raise PushError(
            f"line {number}: env_name is a {type(name).__name__}, accepted is a string or null.",
            remedy="give a file that prime-rl wrote, whole.",
        )
    # A comma separates names in the metadata, which spaces may surround.
    return (name or "").replace(",", ";").strip() or UNNAMED


def _environments(sequences: list[ExportedSequence]) -> list[str]:
    """In order of their first sequence; none unless every line says where it comes from."""
    named = [one.environment for one in sequences if one.environment is not None]
    return list(dict.fromkeys(named)) if len(named) == len(sequences) else []


def _joined(sequences: list[ExportedSequence]) -> Columns:
    """Optional columns are kept if every sequence has them."""
    names = set.intersection(*(set(one.columns) for one in sequences))
    joined = {name: np.concatenate([one.columns[name] for one in sequences]) for name in names}
    # Without an RL loss, prime-rl writes null for every advantage: there are none.
    if "advantages" in joined and np.isnan(joined["advantages"]).all():
        del joined["advantages"]
    lengths = [one.tokens for one in sequences]
    return {**joined, "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)}
