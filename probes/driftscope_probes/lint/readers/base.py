"""Document and Reader: a file's content, and what turns it into settings. Free of torch.

In: the content of a file (readers/registry.py fetches it). Out: settings under canonical names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from driftscope_probes.lint.base import Scalar, Setting, Settings

#: Published configurations stay below 6 levels; YAML's aliases can make a tree without an end.
DEEPEST: Final = 12
#: And below 2,000 values: Hydra's resolved verl configuration has about 700.
MOST: Final = 20_000


@dataclass(frozen=True, slots=True)
class Document:
    name: str  # as it is shown: a path, or what the caller calls the content
    text: str
    table: Mapping[str, Any] = field(default_factory=dict)  # empty: neither JSON, YAML nor TOML

    def where(self, key: str) -> str:
        return f"{self.name}: {key}"


class Reader(Protocol):
    """A kind of source. All readers that recognise a document add to what is known of it."""

    @property
    def reads(self) -> str:
        """In the plural, for people: "arguments of vLLM as a command line, YAML or JSON"."""
        ...

    def recognises(self, document: Document) -> bool:
        """By content, never by name alone: strict, since all that say yes are read."""
        ...

    def read(self, document: Document) -> Settings:
        """Raises nothing for values that it does not understand: they are not known."""
        ...


@dataclass(frozen=True, slots=True)
class Key:
    """Where one value of a source goes."""

    name: str  # of names.NAMES
    convert: Callable[[Any], Scalar | None]  # of readers/values.py; None: not known


def leaves(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of all that is no mapping; a list is a value."""
    left = MOST

    def walk(inner: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        nonlocal left
        for key, value in inner.items():
            left -= 1
            if left < 0:
                return
            if isinstance(value, Mapping):
                if depth < DEEPEST:
                    yield from walk(value, f"{prefix}{key}.", depth + 1)
            else:
                yield f"{prefix}{key}", value

    return walk(table, "", 1)


def settings_at(document: Document, keys: Mapping[str, Key]) -> Settings:
    """What a table of dotted keys finds in a document's table, in the document's order."""
    return settings_of(leaves(document.table), keys, document)


def settings_of(
    values: Iterator[tuple[str, Any]], keys: Mapping[str, Key], document: Document
) -> Settings:
    known = []
    for key, value in values:
        wanted = keys.get(key)
        converted = None if wanted is None else wanted.convert(value)
        if wanted is not None and converted is not None:
            known.append(Setting(wanted.name, converted, document.where(key)))
    return Settings(tuple(known))
