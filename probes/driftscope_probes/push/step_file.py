"""A file with one pushed step → PushedStep, by its format.

In: a path, and the format where the name does not tell it. Out: PushedStep, or PushError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

from driftscope_probes.push.json_step import read_json_step
from driftscope_probes.push.prime_rl_export import read_prime_rl_export
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.rules import PushError
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
