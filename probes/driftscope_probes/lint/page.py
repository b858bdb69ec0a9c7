"""docs/lint-rules.md, rendered from the rules.

In: ALL_RULES and READERS. Out: Markdown; `python -m driftscope_probes.lint.page >
docs/lint-rules.md` writes it, a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Final

from driftscope_probes.lint.base import SEVERITIES, Rule, Severity
from driftscope_probes.lint.readers.registry import READERS
from driftscope_probes.lint.rules.registry import ALL_RULES
from driftscope_probes.plural import counted

INTRODUCTION: Final = """\
# Rules of the lint

Rendered by `python -m driftscope_probes.lint.page`; edit `probes/driftscope_probes/lint/rules/`,
not this page. What reads these settings and how to ask for it: [the lint](lint.md).
"""
HEADINGS: Final[dict[Severity, str]] = {
    "error": "Errors: the two sides cannot agree",
    "warning": "Warnings: they differ in cases that are common",
    "note": "Notes: worth knowing when numbers are read",
}


def page(rules: Sequence[Rule] = ALL_RULES) -> str:
    return "\n".join([INTRODUCTION, *_read(), *_tables(rules)]).rstrip() + "\n"


def _read() -> Iterator[str]:
    yield "## What is read"
    yield ""
    yield from (f"- {reader.reads}" for reader in READERS)
    yield "- a running vLLM server, as far as it tells its arguments"
    yield "- the headers of a model's weights: names, shapes and dtypes of tensors, no values"
    yield ""


def _tables(rules: Sequence[Rule]) -> Iterator[str]:
    yield f"{counted(len(rules), 'rule')} in all."
    yield ""
    for severity in SEVERITIES:
        rows = [rule for rule in rules if rule.severity == severity]
        yield f"## {HEADINGS[severity]}"
        yield ""
        yield "| rule | what happens | what to change | known from |"
        yield "|---|---|---|---|"
        yield from (_row(rule) for rule in rows)
        yield ""


def _row(rule: Rule) -> str:
    leads = f" Leads to [{rule.cause}](causes/{rule.cause}.md)." if rule.cause else ""
    source = f"<{rule.source}>" if rule.source.startswith("http") else _cell(rule.source)
    return f"| `{rule.name}` | {_cell(rule.why)}{leads} | {_cell(rule.remedy)} | {source} |"


def _cell(text: str) -> str:
    """A bar would end the cell, and <x> would be HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(page())
