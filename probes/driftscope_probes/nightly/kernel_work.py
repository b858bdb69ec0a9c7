"""Kernel items of one process → the work of the child, and its verdicts → findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from driftscope_probes.crashes import explain_kernel_crash
from driftscope_probes.nightly.item import Finding, Item, KernelItem, not_run
from driftscope_probes.nightly.shared_process import SharedWork, Unit

MODULE = "driftscope_probes.nightly.kernel_items"
#: Axes that repeat the same call.
REPEATED = ("run_to_run", "fresh_process")


def kernel_work(items: Sequence[KernelItem]) -> SharedWork:
    """One check answers the whole kernel and every axis of it."""
    units: dict[tuple[str, str, int], list[KernelItem]] = {}
    for item in items:
        units.setdefault((item.name, item.dtype, item.threads), []).append(item)
    return SharedWork(
        module=MODULE,
        explain_crash=explain_kernel_crash,
        request={"quick": items[0].quick, "seed": items[0].seed},
        units=tuple(
            Unit({"name": name, "dtype": dtype, "threads": threads}, tuple(of))
            for (name, dtype, threads), of in units.items()
        ),
        read=finding,
    )


def finding(item: Item, line: Mapping[str, Any]) -> Finding:
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
    return (
        f"driftscope kernels check --target {target} --op {op} --dtype {item.dtype} "
        f"--threads {item.threads} --seed {item.seed}{quick}"
    )
