"""Engine items → requests and the work of one child; its axis results → findings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.nightly.item import EngineItem, Finding, Item, not_run
from driftscope_probes.nightly.shared_process import SharedWork, Unit
from driftscope_probes.verdicts import NOT_RUN

#: Set by the item itself.
RESERVED = ("model", "engine", "engine_dtypes", "kernels", "axes")


def request_of(item: EngineItem) -> DeterminismRequest:
    """Raises ValueError naming the setting."""
    said = [name for name in RESERVED if name in item.settings]
    if said:
        raise ValueError(f"settings: {', '.join(said)} is set by the table itself")
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


MODULE = "driftscope_probes.nightly.engine_items"
#: Numbers of an axis that a night keeps; the cells would bloat the history.
KEPT = (
    *("bitwise_equal_tokens", "bitwise_equal_logprobs", "unique_outputs", "outputs"),
    *("tokens", "max_abs_diff", "max_ulps", "first_differing_token", "onset", "bits"),
)


def engine_work(items: Sequence[EngineItem]) -> SharedWork:
    return SharedWork(
        module=MODULE,
        explain_crash=explain_probe_crash,
        request={"model": items[0].model},
        units=tuple(Unit(request_of(item).model_dump(mode="json"), (item,)) for item in items),
        read=finding,
    )


def finding(item: Item, line: Mapping[str, Any]) -> Finding:
    assert isinstance(item, EngineItem)
    if "missing" in line:
        return not_run(item, line["missing"], line["seconds"])
    result = line["axis"]
    if result["verdict"] == NOT_RUN["engine"]:
        return not_run(item, result["reason"], line["seconds"])
    return Finding(
        verdict=result["verdict"],
        seconds=line["seconds"],
        detail={name: result[name] for name in KEPT} | {"reason": _reason(result)},
        replay=result["replay"] or command_of(item),
    )


def _reason(result: Mapping[str, Any]) -> str:
    words = f"{result['bitwise_equal_logprobs']:.1%} of {result['tokens']:,} tokens bitwise equal"
    onset = result["onset"]
    if onset is None:
        return words
    equal = "" if onset["equal_up_to"] is None else f"{onset['equal_up_to']} equal, "
    return f"{words}; {onset['setting']}: {equal}{onset['differs_from']} differs"
