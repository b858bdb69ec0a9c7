"""Items of one process → the work of the child, and what the child says → findings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from driftscope_probes.crashes import explain_kernel_crash, explain_probe_crash
from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.nightly.item import EngineItem, Finding, Item, KernelItem, not_run
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


ENGINE_MODULE = "driftscope_probes.nightly.engine_items"
#: Numbers of an axis that a night keeps; the cells would bloat the history.
KEPT = (
    *("bitwise_equal_tokens", "bitwise_equal_logprobs", "unique_outputs", "outputs"),
    *("tokens", "max_abs_diff", "max_ulps", "first_differing_token", "onset", "bits"),
)


def engine_work(items: Sequence[EngineItem]) -> SharedWork:
    return SharedWork(
        module=ENGINE_MODULE,
        explain_crash=explain_probe_crash,
        request={"model": items[0].model},
        units=tuple(Unit(request_of(item).model_dump(mode="json"), (item,)) for item in items),
        read=engine_finding,
    )


def engine_finding(item: Item, line: Mapping[str, Any]) -> Finding:
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
    if result.get("reason"):
        words = f"{words}; not repeatable: {result['reason']}"
    onset = result["onset"]
    if onset is None:
        return words
    equal = "" if onset["equal_up_to"] is None else f"{onset['equal_up_to']} equal, "
    return f"{words}; {onset['setting']}: {equal}{onset['differs_from']} differs"


KERNEL_MODULE = "driftscope_probes.nightly.kernel_items"
#: Axes that repeat the same call.
REPEATED = ("run_to_run", "fresh_process")


def kernel_work(items: Sequence[KernelItem]) -> SharedWork:
    """One check answers the whole kernel and every axis of it."""
    units: dict[tuple[str, str, int], list[KernelItem]] = {}
    for item in items:
        units.setdefault((item.name, item.dtype, item.threads), []).append(item)
    return SharedWork(
        module=KERNEL_MODULE,
        explain_crash=explain_kernel_crash,
        request={"quick": items[0].quick, "seed": items[0].seed},
        units=tuple(
            Unit({"name": name, "dtype": dtype, "threads": threads}, tuple(of))
            for (name, dtype, threads), of in units.items()
        ),
        read=kernel_finding,
    )


def kernel_finding(item: Item, line: Mapping[str, Any]) -> Finding:
    """For the whole kernel, or for the item's axis."""
    assert isinstance(item, KernelItem)
    if "missing" in line:
        return not_run(item, line["missing"])
    verdict = line["verdict"]
    if item.axis is not None:
        return _on_axis(item, item.axis, line)
    example = verdict["counterexample"]
    return Finding(
        verdict=verdict["verdict"],
        seconds=verdict["seconds"],
        detail={
            "reason": verdict["reason"],
            "detection_rate": verdict["detection_rate"],
            "counterexample": example,
            "bits": _bits(line),
        },
        replay=_check_command(item) if example is None else example["replay"],
    )


def _bits(line: Mapping[str, Any]) -> str | None:
    """None where the kernel's bits are not repeatable: comparing nights would show nothing."""
    repeats = not any(
        count["mismatches"] for count in line["verdict"]["axes"] if count["axis"] in REPEATED
    )
    return line["bits"] if repeats else None


def _on_axis(item: KernelItem, axis: str, line: Mapping[str, Any]) -> Finding:
    verdict = line["verdict"]
    example = verdict["counterexample"]
    # Trees may differ where no value did: the counterexample says on which axis.
    shown = example is not None and example["axis"] == axis
    counted = next((one for one in verdict["axes"] if one["axis"] == axis), None)
    compared = 0 if counted is None else counted["trials"] - counted["refused"]
    if not shown and compared == 0:
        why = verdict["reason"] if verdict["verdict"] == "INCONCLUSIVE" else "nothing is compared"
        return not_run(item, f"axis {axis}: {why}", verdict["seconds"])
    differing = 0 if counted is None else counted["mismatches"]
    return Finding(
        verdict="REFUTED" if shown or differing > 0 else "NOT_REFUTED",
        seconds=verdict["seconds"],
        detail={
            "reason": f"{differing} of {compared} comparisons differ",
            "counterexample": example if shown else None,
            "bits": _bits(line),
        },
        replay=example["replay"] if shown else _check_command(item),
    )


def _check_command(item: KernelItem) -> str:
    target, op, _ = item.name.split("/")
    quick = " --quick" if item.quick else ""
    axis = "" if item.axis is None else f" --axis {item.axis}"
    return (
        f"driftscope kernels check --target {target} --op {op} --dtype {item.dtype} "
        f"--threads {item.threads}{axis} --seed {item.seed}{quick}"
    )
