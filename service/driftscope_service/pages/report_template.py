"""The templates of all pages, and the page of a report as one file that opens offline."""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from driftscope_probes.lint.report import read_findings
from driftscope_probes.numbers import NUMBERS
from driftscope_probes.plural import counted
from driftscope_probes.record import Record
from driftscope_service.numbers import limit_words, metric_words
from driftscope_service.numbers.metric_words import grouped, shown, written
from driftscope_service.pages import diagnosis, navigation, term_link, words
from driftscope_service.pages.limit_sources import limit_page
from driftscope_service.pages.sparkline import sparkline
from driftscope_service.terminal.findings import shown as shown_setting

ABSENT = "–"


@dataclass(frozen=True, slots=True)
class SettingRow:
    name: str
    values: tuple[str, ...]  # one per column

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True)
class SettingTable:
    columns: tuple[str, ...]  # dtypes or modes; one twice if its settings were not the same
    rows: tuple[SettingRow, ...]


def setting_table(metas: Sequence[Mapping[str, Any]]) -> SettingTable:
    unique: list[Mapping[str, Any]] = []
    for meta in metas:
        if meta not in unique:
            unique.append(meta)
    columns = [flat({name: meta[name] for name in meta if name != "side"}) for meta in unique]
    names = dict.fromkeys(name for column in columns for name in column)
    return SettingTable(
        columns=tuple(str(meta["dtype"]) for meta in unique),
        rows=tuple(
            SettingRow(
                name.removeprefix("settings."),
                tuple(column.get(name, ABSENT) for column in columns),
            )
            for name in names
            if name != "dtype"
        ),
    )


def flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """Dotted names to text: strings as they are, everything else as JSON writes it."""
    return dict(_flat(settings, ""))


def _flat(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            yield prefix + name, value
        else:
            yield prefix + name, json.dumps(value, ensure_ascii=False)


SITE = "pages/templates/layout.html.jinja"
SELF_CONTAINED = "pages/templates/self_contained.html.jinja"


def self_contained(
    template: str,
    report: Record,
    *,
    title: str,
    kind: str,
    script: str | None = None,
    **shown: Any,
) -> str:
    """The page that the site shows of a report, as one file that opens offline.

    `script`: the module under static/ that draws its plots. Same report, same bytes."""
    return (
        environment()
        .get_template(template)
        .render(
            **{"layout": SELF_CONTAINED, "stored": None, "report": report, "title": title},
            **{"kind": kind, "script": script},
            **shown,
        )
    )


def _source(name: str) -> str | None:
    """`name`: a path within this package, or PACKAGE:PATH of an experiment that is not ours."""
    package, _, path = name.rpartition(":")
    file = files(package or "driftscope_service").joinpath(path)
    return file.read_text(encoding="utf-8") if file.is_file() else None


@cache
def environment() -> Environment:
    """Of all pages. `layout` is what a report extends: the frame of the site, unless it is said."""
    made = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=_or_undefined(metric_words.number),
        share=_or_undefined(metric_words.share),
        counted=counted,
        seconds=metric_words.seconds,
        moment=words.absolute,
        ago=words.ago,
        clock=words.clock,
        ago_time=words.ago_time,
        iso=words.iso,
        flat=flat,
        grouped=grouped,
        shown=shown,
        formula=_formula,
        plot_rows=diagnosis.plot_rows,
        embedded=_embedded,
        setting=shown_setting,
        findings=read_findings,
    )
    made.tests["infinite"] = math.isinf
    made.globals.update(
        layout=SITE,
        with_query=navigation.with_query,
        run_page=navigation.run_page,
        step_page=navigation.step_page,
        sparkline=sparkline,
        interval=metric_words.interval,
        metric_of=NUMBERS,
        crossed_beside=limit_words.crossed,
        limit_page=limit_page,
        term=term_link.term,
        number_term=term_link.number_term,
        written=written,
        asset=asset,
        bundle=bundle,
    )
    return made


def _or_undefined(write: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: metric_words.UNDEFINED if value is None else write(value)


def _formula(text: str) -> Markup:
    """Keeps |Δ| on one line; everything else is escaped."""
    return escape(text).replace("|Δ|", Markup('<span class="nowrap">|Δ|</span>'))


def _embedded(value: object) -> Markup:
    """JSON inside a script element: no `<` can end the element or open a comment."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def asset(name: str) -> Markup:
    """Text of a file under static/."""
    path = files("driftscope_service") / "pages" / "static" / name
    return Markup(path.read_text(encoding="utf-8"))


_IMPORT = re.compile(r'^import (?:(\{[^}]+\}) from )?"([^"]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:function|const|class) (\w+))", re.MULTILINE)


@cache
def bundle(entry: str) -> Markup:
    """The module `entry` of static/ with all that it imports as one script without modules, which
    a page that opens offline could not load: each keeps a scope of its own."""
    scopes: dict[str, str] = {}

    def add(name: str) -> None:
        text = asset(name)

        def imported(statement: re.Match[str]) -> str:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), statement[2]))
            if path not in scopes:
                add(path)
            names = (statement[1] or "").replace(" as ", ": ")
            return f'const {names} = modules["{path}"];' if names else ""

        body = _EXPORT.sub("", _IMPORT.sub(imported, text))
        exports = ", ".join(_EXPORT.findall(text))
        scopes[name] = f'modules["{name}"] = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();'

    add(entry)
    return Markup("\n".join(['"use strict";', "const modules = {};", *scopes.values()]))
