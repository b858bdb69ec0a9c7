"""The pages docs/causes/<name>.md: what the catalogue says of a cause, and a real example.

    python -m driftscope_probes.diagnosis.cause_pages CASES docs/causes

In: a folder of the drill's cases (`python -m driftscope_probes.diagnosis.drill.dump CASES`), which
are push files named <cause>__<way>__<severity>__<setting>__<number>.safetensors. Out: one page per
cause, with the answer to the case in which its cause is surest; a cause without a case keeps the
example that its page has.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from driftscope_probes.diagnosis.cause import Diagnosis, NamedCause
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.families.base import LEVELS, Cause
from driftscope_probes.diagnosis.families.registry import BY_NAME, CAUSES
from driftscope_probes.diagnosis.observed import observed_of
from driftscope_probes.push.step_file import read_step

EXAMPLE = "## An example"
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


def page_of(cause: Cause, example: str) -> str:
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
    for cause in CAUSES:
        files = sorted(given.cases.glob(f"{cause.name}__*.safetensors"))
        if cause.healthy:
            files = sorted(given.cases.glob("healthy__*.safetensors"))
        example = best_example(cause.name, files[-MOST_CASES:])
        page = given.pages / f"{cause.name}.md"
        text = kept_example(page) if example is None else example_of(example)
        page.write_text(page_of(cause, text), encoding="utf-8")
        print(cause.name, "no example" if not text else "")
    (given.pages / "README.md").write_text(index_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
