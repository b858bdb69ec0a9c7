"""A step from a file of any format, and the shards of one step joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.json_step import read_json_step
from driftscope_probes.push.prime_rl_export import read_prime_rl_export
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.rules import MAX_JOINED_BYTES, MAX_SEQUENCES, MAX_TOKENS, PushError
from driftscope_probes.push.safetensors_step import read_safetensors_step

StepFormat = Literal["safetensors", "arrow", "json", "prime-rl"]
FORMATS: tuple[StepFormat, ...] = get_args(StepFormat)
BY_SUFFIX: Mapping[str, StepFormat] = {
    ".safetensors": "safetensors",
    ".arrows": "arrow",
    ".json": "json",
    ".jsonl": "prime-rl",
}


def _read_arrow_step(path: Path) -> PushedStep:
    # Imported here: the library takes 50 ms to load, which other formats need not wait for.
    from driftscope_probes.push.arrow_step import read_arrow_step

    return read_arrow_step(path)


_READERS: Mapping[StepFormat, Callable[[Path], PushedStep]] = {
    "safetensors": read_safetensors_step,
    "arrow": _read_arrow_step,
    "json": read_json_step,
    "prime-rl": read_prime_rl_export,
}


def read_step(path: Path, step_format: StepFormat | None = None) -> PushedStep:
    """step_format: None uses the suffix."""
    # Also rejects pipes and devices, which have no size and may never end.
    if not path.is_file():
        raise PushError("there is no such file.", remedy="give the file of one step.")
    known = step_format or BY_SUFFIX.get(path.suffix)
    if known is None:
        raise PushError(
            f"its suffix {path.suffix[:80]!r} names no format.",
            remedy=f"give the format: {', '.join(FORMATS)}.",
        )
    try:
        return _READERS[known](path)
    except OSError as error:
        raise PushError(
            f"it cannot be read: {error.strerror}.", remedy="check its permissions and its disk."
        ) from error


def join_steps(steps: Sequence[PushedStep]) -> PushedStep:
    """Everything is checked before memory is allocated. Peak: the shards plus the whole."""
    assert steps, "a step has at least one shard"
    if len(steps) == 1:
        return steps[0]
    _check_sizes(steps)
    for shard, step in enumerate(steps):
        _check_tensors(shard, step, steps[0])
        _check_metadata(shard, step, steps[0])
    columns = {name: [step.tensors()[name] for step in steps] for name in steps[0].tensors()}
    limits = _limits(columns.pop("cu_seqlens"))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return pushed_step(joined | {"cu_seqlens": limits}, steps[0].metadata)


def _limits(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    lengths = np.concatenate([np.diff(limits) for limits in parts])
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _check_sizes(steps: Sequence[PushedStep]) -> None:
    for name, most, given in (
        ("tokens", MAX_TOKENS, sum(step.tokens for step in steps)),
        ("sequences", MAX_SEQUENCES, sum(step.sequences for step in steps)),
        ("bytes", MAX_JOINED_BYTES, sum(_bytes(step) for step in steps)),
    ):
        if given > most:
            raise PushError(
                f"its {len(steps)} shards have {given:,} {name} together, accepted are {most:,}.",
                remedy="push fewer sequences of each step.",
            )


def _bytes(step: PushedStep) -> int:
    return sum(tensor.nbytes for tensor in step.tensors().values())


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
        if (tensor.dtype, tensor.shape[1:]) != (other.dtype, other.shape[1:]):
            raise PushError(
                f"{name} is {_kind(tensor)} in shard {shard} and {_kind(other)} in shard 0.",
                remedy=f"send {name} alike from every rank.",
            )


def _kind(tensor: NDArray[Any]) -> str:
    """Dtype and shape of one token."""
    return f"{tensor.dtype}{list(tensor.shape[1:])}"


def _check_metadata(shard: int, step: PushedStep, first: PushedStep) -> None:
    for name in sorted(step.metadata.keys() | first.metadata.keys()):
        own, expected = step.metadata.get(name), first.metadata.get(name)
        if own != expected:
            raise PushError(
                f"metadata {name[:80]!r} is {_shown(own)} in shard {shard} and "
                f"{_shown(expected)} in shard 0.",
                remedy="send the same metadata with every shard of a step.",
            )


def _shown(value: str | None) -> str:
    return "absent" if value is None else repr(value[:80])
