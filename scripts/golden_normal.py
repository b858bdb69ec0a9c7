"""What a program answers, with everything that differs from run to run replaced by its kind.

In: text, JSON, a page or the metrics page. Out: text of which every line means something.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

NUMBER = r"[0-9][0-9,]*(?:\.[0-9]+)?"
UNIT = r"(?:milliseconds?|ms|seconds?|minutes?|min|hours?|h|days?|s)\b"
RULES = [
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:]{5,8}(?:\.[0-9]+)?(?:Z|\+00:00| UTC)?", "<time>"),
        (r"\b[0-9]{8}T[0-9]{6}Z(?:-[0-9]+)?", "<night>"),
        (r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}\b", "<date>"),
        (r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT", "<time>"),
        (r"(?m)^(?:[0-9]+ h )?(?:[0-9]+ min )?[0-9]+ (?:s|ms)$", "<duration>"),
        (r"\bdsk_[A-Za-z0-9_-]+|(?:(?<=\bkey )|(?<=│ ))[0-9a-f]{12}(?= )", "<key>"),
        (r'(?<=\btime=")[0-9.]+|(?<="seconds": )[0-9.]+', "<duration>"),
        (r"(?m)^((?:NOT_)?REFUTED|PROVED|equal|differs)\n[0-9]+\.[0-9]$", r"\1\n<duration>"),
        (r"(?<![0-9A-Za-z])[0-7][0-9A-HJKMNP-TV-Z]{25}\b", "<id>"),
        (r"(?<=127\.0\.0\.1:)(?!1\b)[0-9]+", "<port>"),
        (r"(?<=datetime=<time>\n)[0-9]{2}:[0-9]{2}(?=\n)", "<time>"),
        (r"cursor=[A-Za-z0-9_%=.-]+", "cursor=<cursor>"),
        (rf"(?<![\w.]){NUMBER} ?{UNIT} ago|just now|(?:a|an) {UNIT} ago", "<ago>"),
        (r"\b[0-9a-f]{12}-dirty|\b[0-9a-f]{40}\b|(?<=\ncommit\n)[0-9a-f]{12}\b", "<commit>"),
        (r"(?:dur=)?[0-9]+\.[0-9]+(?= ?(?:ms|s|min)\b| {2}(?:kernel|engine)/)", "<duration>"),
        (r"dur=[0-9.]+", "<duration>"),
    )
]
PROGRESS = re.compile(r"^ *[0-9]+% .*\n", re.MULTILINE)
#: Keys of JSON whose values are moments or durations; null says that there is none, and stays.
VOLATILE_KEYS = re.compile(
    r".*(?:_at|_s|_seconds|_ms)|at|seconds|next_cursor|commit|request_id|pid"
)
FACTS = re.compile(r"environment|hardware|platform|versions")
VOLATILE_SAMPLES = re.compile(
    r"(?:process|python)_\w+|\w+_(?:seconds|seconds_sum|seconds_bucket|created|timestamp_seconds)"
    r"|\w*(?:disk|memory|storage|stored|database)\w*_bytes\w*|\w+_info"
)
ATTRIBUTES = {"action", "alt", "aria-label", "d", "datetime", "href", "method", "name", "points"}
ATTRIBUTES |= {"role", "src", "title", "type", "value", "placeholder", "selected", "checked"}
HEADERS_LEFT_OUT = {"date", "content-length", "etag", "x-request-id", "transfer-encoding"}


def text(found: str, places: Mapping[str, str]) -> str:
    """`places`: paths of this run and what to call them, the longest first."""
    for path, name in places.items():
        found = found.replace(path, name)
    found = PROGRESS.sub("", found.replace("\r", "\n"))
    for pattern, kind in RULES:
        found = pattern.sub(kind, found)
    return found


def any_json(value: Any, places: Mapping[str, str], fact: bool = False) -> Any:
    """`fact`: within the description of a machine, of which only the keys are kept."""
    if isinstance(value, dict):
        return {text(key, places): _field(key, one, places, fact) for key, one in value.items()}
    if fact:
        return value if value is None else "<fact>"
    if isinstance(value, list):
        return [any_json(one, places) for one in value]
    return text(value, places) if isinstance(value, str) else value


def _field(key: str, value: Any, places: Mapping[str, str], fact: bool) -> Any:
    volatile = VOLATILE_KEYS.fullmatch(key) and not isinstance(value, dict | list)
    if volatile and value is not None and not isinstance(value, bool):
        return f"<{key}>"
    schema = isinstance(value, dict) and not value.keys().isdisjoint(("type", "anyOf", "$ref"))
    return any_json(value, places, fact or (bool(FACTS.fullmatch(key)) and not schema))


def maybe_json(found: str, places: Mapping[str, str]) -> str:
    """One object of JSON in lines of its own, in its own order; other text as text."""
    if found.lstrip()[:1] in ("{", "["):
        try:
            value = any_json(json.loads(found), places)
        except json.JSONDecodeError:
            return text(found, places)
        return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    return text(found, places)


def metrics(found: str, places: Mapping[str, str]) -> str:
    lines = []
    for line in text(found, places).splitlines():
        name = re.split(r"[{ ]", line, maxsplit=1)[0]
        if VOLATILE_SAMPLES.fullmatch(name):
            line = line.rpartition(" ")[0] + " <value>"
        lines.append(line)
    return "\n".join(lines) + "\n"


class Page(HTMLParser):
    """What a reader sees of a page and can follow from it; neither tags nor styles."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.links: list[str] = []
        self._hidden = ""  # within this element nothing is seen
        self._data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._data = tag == "script" and "json" in given.get("type", "")
        if tag in ("script", "style") and not self._data:
            self._hidden = tag
        kept = [
            f"{name}={' '.join(value.split())}"
            for name, value in given.items()
            if name in ATTRIBUTES or value.startswith("/")
        ]
        if kept:
            self.lines.append(" @ " + " ".join(kept))
        self.links += [value for value in given.values() if value.startswith("/")]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._hidden, self._data = "", False

    def handle_data(self, data: str) -> None:
        if self._data:
            self.lines.append(json.dumps(any_json(json.loads(data), {}), ensure_ascii=False))
        elif not self._hidden and data.strip():
            self.lines.append(" ".join(data.split()))


def page(found: str, places: Mapping[str, str]) -> tuple[str, list[str]]:
    """The text of a page, and the paths that stand in it."""
    parsed = Page()
    parsed.feed(found)
    parsed.close()
    return text("\n".join(parsed.lines) + "\n", places), parsed.links
