"""The pages docs/causes/<name>.md: what the catalogue says of a cause, what settles it, an example.

    python -m driftscope_probes.diagnosis.cause_pages CASES docs/causes

In: a folder of the drill's cases (`python -m driftscope_probes.diagnosis.drill.dump CASES`), which
are push files named <cause>__<way>__<severity>__<setting>__<number>.safetensors, and the recorded
controls in docs/controls.json. Out: one page per cause, with the controls that settle it, a real
run of them, and the answer to the case in which its cause is surest; a cause without a case keeps
the example that its page has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from driftscope_probes.diagnosis.cause import Diagnosis, NamedCause
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.registry import CONTROLS
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.drill.planted.report import ControlsReport
from driftscope_probes.diagnosis.families.base import LEVELS, Cause
from driftscope_probes.diagnosis.families.registry import BY_NAME, CAUSES
from driftscope_probes.diagnosis.observed import observed_of
from driftscope_probes.plural import counted
from driftscope_probes.push.step_file import read_step

EXAMPLE = "## An example"
#: A control with a smaller weight speaks for other causes as well as for this one.
SPEAKS_FROM = 0.5
MOST_CONTROLS = 4
RECORDED = "controls.json"  # beside the folder of the pages
LEVEL_TITLES = {
    "comparable": "Can the two sides be compared at all?",
    "alignment": "Do both speak of the same token?",
    "semantics": "Do both mean the same distribution?",
    "context": "Did both see the same context?",
    "weights": "Did both run the same function with the same weights?",
    "arithmetic": "Did both compute it with the same arithmetic?",
}
#: A page needs one good example: so many cases of a cause are looked at.
MOST_CASES = 12


@dataclass(frozen=True, slots=True)
class Example:
    """A case and the answer to it."""

    file: str
    diagnosis: Diagnosis
    named: NamedCause


def page_of(cause: Cause, example: str, recorded: ControlsReport | None = None) -> str:
    """`example`: the section from its heading on, or nothing."""
    alike = [name for name in cause.alike if name != cause.name and name in BY_NAME]
    parts = [
        f"# {cause.name}",
        f"{cause.title[0].upper()}{cause.title[1:]}.",
        "## How it comes about",
        cause.mechanism,
        "## What the data look like",
        cause.signature,
        "## What to change",
        cause.remedy,
        "## What settles it",
        cause.next_control,
        settled_by(cause.name),
        *run_of(cause.name, recorded),
    ]
    if alike:
        links = ", ".join(f"[{name}]({name}.md)" for name in alike)
        parts += [
            "## What looks alike",
            f"In one step's data: {links}. The control tells them apart.",
        ]
    if example:
        parts.append(example)
    parts.append("[All causes](README.md)")
    return "\n\n".join(parts) + "\n"


def settling(cause: str) -> list[Control]:
    """Controls that speak for the cause rather than against it, the surest first."""
    found = [one for one in CONTROLS if one.points_to.get(cause, 0.0) >= SPEAKS_FROM]
    return sorted(found, key=lambda one: -one.points_to[cause])[:MOST_CONTROLS]


def settled_by(cause: str) -> str:
    controls = settling(cause)
    if not controls:
        return (
            "No control that `driftscope diagnose` runs by itself settles it: the step's data, or "
            "the run above by hand, do."
        )
    rows = (
        f"- `{one.name}`: {one.title}. {one.positive.capitalize()} speaks for it "
        f"({one.points_to[cause]:g})."
        for one in controls
    )
    return "Of the controls that `driftscope diagnose` runs:\n\n" + "\n".join(rows)


def run_of(cause: str, recorded: ControlsReport | None) -> list[str]:
    """Heading and text of a recorded run; nothing where there is none."""
    cases = [case for case in recorded.planted if case.cause == cause] if recorded else []
    if not cases or recorded is None:
        return []
    case = max(cases, key=lambda one: (one.right, one.confidence or 0.0))
    said = f"{case.data_causes[0][0]} ({case.data_causes[0][1]:.2f})" if case.data_causes else None
    names = {one.name for one in settling(cause)}
    rows = "\n".join(
        f"| `{run.control}` | {run.outcome} | {_shown(run.what or '')} | {run.value:.3g} | "
        f"{_shown(run.expected or '')} |"
        for run in case.runs
        if run.exercised and run.value is not None and run.control in names
    )
    heads = "| control | outcome | measured | value | expected |\n|---|---|---|---|---|"
    hardware = recorded.environment["hardware"]
    return [
        "## A real run of it",
        f"Planted in a real engine and trainer ({case.model}, {case.dtypes}): {case.what}. The "
        f"difference was {case.sigma / case.floor:.2g} times the floor, and the data of the step "
        f"named {said or 'no cause'} first. After {counted(case.planner_controls, 'control')} the "
        f"planner's answer was {case.answer} ({case.confidence or 0.0:.2f}), {case.seconds:.0f} s "
        f"on {hardware['cpu']} (`driftscope drill --controls --cause {cause}`)."
        + (f"\n\n{heads}\n{rows}" if rows else ""),
    ]


def recorded_controls(file: Path) -> ControlsReport | None:
    """What `driftscope drill --controls --markdown` left; None where nothing did."""
    if not file.exists():
        return None
    return ControlsReport.read(json.loads(file.read_text(encoding="utf-8")))


def example_of(example: Example) -> str:
    """The answer as it was given, with its numbers."""
    rows = "\n".join(
        f"| {item.what} | {_shown(item.value)} | {item.expected} |"
        for item in example.named.evidence
    )
    _, way, severity, setting, _ = example.file.split("__")
    return (
        f"{EXAMPLE}\n\n"
        f"The drill put this fault into a real pair (way {way}, severity {severity}, setting "
        f"`{setting}`), and the answer was, with the prior floor:\n\n"
        f"> {example.diagnosis.sentence}\n\n"
        f"| evidence | measured | expected without it |\n|---|---|---|\n{rows}"
    )


def _shown(value: float | int | str) -> str:
    return str(value).replace("|", "\\|")


def index_page() -> str:
    parts = [
        "# Causes",
        "What a diagnosis can name, in the order in which it reasons: what stands earlier explains "
        "what later tests see. Each page says how the cause comes about, what the data look like, "
        "what to change, and the cheapest run that settles it. How often each is named rightly: "
        "[the drill](../drill.md). What fits none of them is [unexplained](unexplained.md).",
    ]
    for level in LEVELS:
        rows = "\n".join(
            f"| [{cause.name}]({cause.name}.md) | {cause.title} |"
            for cause in CAUSES
            if cause.level == level
        )
        parts.append(f"## {LEVEL_TITLES[level]}\n\n| cause | in a sentence |\n|---|---|\n{rows}")
    return "\n\n".join(parts) + "\n"


def best_example(name: str, files: Iterable[Path]) -> Example | None:
    best: Example | None = None
    for path in files:
        diagnosis = diagnose(observed_of(read_step(path)))
        named = next((cause for cause in diagnosis.causes if cause.name == name), None)
        if named and (best is None or named.confidence > best.named.confidence):
            best = Example(path.name.removesuffix(".safetensors"), diagnosis, named)
    return best


def kept_example(page: Path) -> str:
    if not page.exists():
        return ""
    _, found, rest = page.read_text(encoding="utf-8").partition(EXAMPLE)
    return (found + rest).rpartition("\n\n[All causes]")[0] if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("pages", type=Path)
    given = parser.parse_args()
    recorded = recorded_controls(given.pages.parent / RECORDED)
    for cause in CAUSES:
        files = sorted(given.cases.glob(f"{cause.name}__*.safetensors"))
        if cause.healthy:
            files = sorted(given.cases.glob("healthy__*.safetensors"))
        example = best_example(cause.name, files[-MOST_CASES:])
        page = given.pages / f"{cause.name}.md"
        text = kept_example(page) if example is None else example_of(example)
        page.write_text(page_of(cause, text, recorded), encoding="utf-8")
        print(cause.name, "no example" if not text else "")
    (given.pages / "README.md").write_text(index_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
