"""A step from a file of any format, and the shards of one step joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.readers.base import StepFormat
from driftscope_probes.push.readers.registry import reader_of
from driftscope_probes.push.rules import (
    ENVIRONMENTS,
    MAX_JOINED_BYTES,
    MAX_SEQUENCES,
    MAX_TOKENS,
    RULES,
    PushError,
    environment_names,
)

FORMATS: tuple[StepFormat, ...] = get_args(StepFormat)


def read_step(
    path: Path, step_format: StepFormat | None = None, columns: ColumnNames = AS_THEY_ARE
) -> PushedStep:
    """step_format: None tells it by the content, or else by the suffix."""
    try:
        reader = reader_of(path, step_format, columns)
        return reader.read(path, columns)
    except OSError as error:
        raise PushError(
            f"it cannot be read: {error.strerror}.", remedy="check its permissions and its disk."
        ) from error


def join_steps(steps: Sequence[PushedStep]) -> PushedStep:
    """Everything is checked before memory is allocated. Peak: the shards plus the whole.

    Two things may differ between ranks, because each rank knows its own share only: the dtype of
    expert ids, which becomes one that holds them all, and the list `environments`.
    """
    assert steps, "a step has at least one shard"
    if len(steps) == 1:
        return steps[0]
    _check_counts(steps)
    steps, environments = _one_list_of_environments(steps)
    for shard, step in enumerate(steps):
        _check_tensors(shard, step, steps[0])
        _check_metadata(shard, step, steps[0])
    columns = {name: [step.tensors()[name] for step in steps] for name in steps[0].tensors()}
    _check_bytes(columns)
    limits = _limits(columns.pop("cu_seqlens"))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return pushed_step(joined | {"cu_seqlens": limits}, {**steps[0].metadata, **environments})


def _one_list_of_environments(
    steps: Sequence[PushedStep],
) -> tuple[Sequence[PushedStep], Mapping[str, str]]:
    """Shards that count through the same names, and those names as a metadata entry."""
    if len({step.metadata.get(ENVIRONMENTS) for step in steps}) == 1:
        return steps, {}
    listed = (environment_names(step.metadata) for step in steps)
    known = [names for names in listed if names is not None]
    if len(known) < len(steps):  # an index into no list can be joined to nothing
        return steps, {}
    every = tuple(dict.fromkeys(name for names in known for name in names))
    entry = {ENVIRONMENTS: ",".join(every)}
    return [
        _recounted(step, names, every, entry) for step, names in zip(steps, known, strict=True)
    ], entry


def _recounted(
    step: PushedStep, own: Sequence[str], every: Sequence[str], entry: Mapping[str, str]
) -> PushedStep:
    extras = step.extras
    if extras.environment is not None:
        index = np.array([every.index(name) for name in own], np.int32)
        extras = replace(extras, environment=index[extras.environment])
    return replace(step, extras=extras, metadata={**step.metadata, **entry})


def _limits(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    lengths = np.concatenate([np.diff(limits) for limits in parts])
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _check_counts(steps: Sequence[PushedStep]) -> None:
    _check_size(len(steps), "tokens", MAX_TOKENS, sum(step.tokens for step in steps))
    _check_size(len(steps), "sequences", MAX_SEQUENCES, sum(step.sequences for step in steps))


def _check_bytes(columns: Mapping[str, Sequence[NDArray[Any]]]) -> None:
    """As they will be once joined: expert ids may widen."""
    joined = sum(
        sum(part.size for part in parts) * np.result_type(*parts).itemsize
        for parts in columns.values()
    )
    _check_size(len(columns["cu_seqlens"]), "bytes", MAX_JOINED_BYTES, joined)


def _check_size(shards: int, name: str, most: int, given: int) -> None:
    if given > most:
        raise PushError(
            f"its {shards} shards have {given:,} {name} together, accepted are {most:,}.",
            remedy="push fewer sequences of each step.",
        )


def _check_tensors(shard: int, step: PushedStep, first: PushedStep) -> None:
    own, expected = step.tensors(), first.tensors()
    for name in sorted(own.keys() ^ expected.keys()):
        has, lacks = (shard, 0) if name in own else (0, shard)
        raise PushError(
            f"shard {has} has {name}, shard {lacks} does not.",
            remedy=f"send {name} with every shard of a step or with none.",
        )
    for name, tensor in own.items():
        other = expected[name]
        widens = RULES[name].inner_dimensions > 0  # of its integers, the common one holds all
        if tensor.shape[1:] != other.shape[1:] or not (widens or tensor.dtype == other.dtype):
            raise PushError(
                f"{name} is {_kind(tensor)} in shard {shard} and {_kind(other)} in shard 0.",
                remedy=f"send {name} alike from every rank.",
            )


def _kind(tensor: NDArray[Any]) -> str:
    """Dtype and shape of one token."""
    return f"{tensor.dtype}{list(tensor.shape[1:])}"


def _check_metadata(shard: int, step: PushedStep, first: PushedStep) -> None:
    check_same_metadata(shard, step.metadata, first.metadata)


def check_same_metadata(shard: int, given: Mapping[str, str], first: Mapping[str, str]) -> None:
    """`first`: of shard 0. Raises PushError."""
    for name in sorted(given.keys() | first.keys()):
        own, expected = given.get(name), first.get(name)
        if own != expected:
            raise PushError(
                f"metadata {name[:80]!r} is {_shown(own)} in shard {shard} and "
                f"{_shown(expected)} in shard 0.",
                remedy="send the same metadata with every shard of a step.",
            )


def _shown(value: str | None) -> str:
    return "absent" if value is None else repr(value[:80])
