"""Engine items of one process → the work of the child, and its axis results → findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from driftscope_probes.nightly.engine_request import command_of, request_of
from driftscope_probes.nightly.item import NOT_RUN, EngineItem, Finding, Item, not_run
from driftscope_probes.nightly.shared_process import SharedWork, Unit
from driftscope_probes.probe_crash import explain_crash

MODULE = "driftscope_probes.nightly.engine_items"
#: Figures of an axis that a night keeps; the cells would fill the history.
KEPT = (
    *("bitwise_equal_tokens", "bitwise_equal_logprobs", "unique_outputs", "outputs"),
    *("tokens", "max_abs_diff", "max_ulps", "first_differing_token", "onset", "bits"),
)


def engine_work(items: Sequence[EngineItem]) -> SharedWork:
    return SharedWork(
        module=MODULE,
        explain_crash=explain_crash,
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
