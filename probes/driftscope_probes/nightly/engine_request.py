"""An engine item → the determinism request that it stands for, and the command that makes it."""

from __future__ import annotations

import shlex

from pydantic import ValidationError

from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.nightly.item import EngineItem

#: Said by the item itself.
RESERVED = ("model", "engine", "engine_dtypes", "kernels", "axes")


def request_of(item: EngineItem) -> DeterminismRequest:
    """Raises ValueError, which names the setting."""
    said = [name for name in RESERVED if name in item.settings]
    if said:
        raise ValueError(f"settings: {', '.join(said)} is said by the table itself")
    fields = {
        "model": item.model,
        "engine": item.engine,
        "engine_dtypes": [item.dtype],
        "kernels": item.kernels,
        "axes": [item.axis],
        **item.settings,
    }
    try:
        return DeterminismRequest.model_validate(fields)
    except ValidationError as error:
        words = (
            f"{'.'.join(map(str, one['loc'])) or 'settings'}: {one['msg']}"
            for one in error.errors()
        )
        raise ValueError("; ".join(words)) from error


def command_of(item: EngineItem) -> str:
    """All values of the axis; the report of a difference has a command for the smallest case."""
    words = ["driftscope", "probe", "determinism", "--model", item.model, "--axes", item.axis]
    words += ["--engine", item.engine, "--engine-dtypes", item.dtype, "--kernels", item.kernels]
    for name, value in item.settings.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, list):
            words += [f"--{option}", ",".join(map(str, value))]
        else:
            words += [f"--{option}", str(value)]
    return shlex.join(words)
