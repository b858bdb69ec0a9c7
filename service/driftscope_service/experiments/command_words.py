"""The same request as one command line and as curl.

In: a kind and a request of it. Out: words for a shell, and what they cannot say.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from driftscope_service.experiments.form import Slot, slots
from driftscope_service.experiments.kind import CommandLine, Kind

#: Words of the command line, and what they cannot say.
_Said: TypeAlias = tuple[tuple[str, ...], str | None]
PROMPT_FILE: Final = "prompts.jsonl"
KEY_HEADER: Final = "Authorization: Bearer $DRIFTSCOPE_API_KEY"


@dataclass(frozen=True, slots=True)
class SameRequest:
    """What a form asks for, in the two other ways of asking."""

    command: str
    remarks: tuple[str, ...]  # what the command line cannot say
    curl: str
    body: str  # its JSON: what differs from the defaults


def same_request(kind: Kind, request: BaseModel | None, url: str, *, key: bool) -> SameRequest:
    """`url`: of the service, as the reader reaches it. `key`: whether it asks for one."""
    body = {} if request is None else request.model_dump(mode="json", exclude_defaults=True)
    said = [] if request is None else list(_said(kind.command, request))
    words = [*kind.command.words, *(word for words, _ in said for word in words)]
    remarks = tuple(remark for _, remark in said if remark is not None)
    text = json.dumps(body, ensure_ascii=False)
    return SameRequest(shlex.join(words), remarks, _curl(kind, text, url, key), text)


def _said(line: CommandLine, request: BaseModel) -> Iterator[_Said]:
    every = {slot.name: slot for slot in slots(type(request))}
    for name, slot in every.items():
        value = _value(slot, request)
        if name in line.shared:
            other = _value(every[line.shared[name]], request)
            if value != other:
                said = f"{name} is {_plain(value)} and {line.shared[name]} is {_plain(other)}"
                yield (), f"{said}: the command line gives one value to both."
        elif not slot.required and value == slot.default:
            continue
        elif name in line.service_only:
            yield (), f"{name} is of the service: give {line.service_only[name]} instead."
        else:
            yield from _option(slot, value, line.options)


def _option(slot: Slot, value: Any, options: Mapping[str, str]) -> Iterator[_Said]:
    option = "--" + slot.path[-1].replace("_", "-")
    given = options.get(slot.name, option)
    if isinstance(value, bool):
        on, _, off = given.partition("/")
        off = off or "--no-" + on.removeprefix("--")
        yield (on if value else off,), None
    elif slot.control == "lines" and not isinstance(value, int):
        yield (given, PROMPT_FILE), f"{PROMPT_FILE} holds them: {prompt_lines(value)}"
    elif isinstance(value, list | tuple):
        yield (given, ",".join(map(str, value))), None
    elif value is None:
        yield (), f"{slot.name} is none: the command line has no word for it."
    else:
        yield (given, str(value)), None


def prompt_lines(values: Any) -> str:
    """How many there are, and the first as the file has it."""
    first = values[0]
    said = {"prompt": first} if isinstance(first, str) else {"messages": "…"}
    count = len(values)
    return f"{count} line{'' if count == 1 else 's'}, the first {json.dumps(said)[:80]}"


def _plain(value: Any) -> str:
    return "not given" if value is None else str(value)


def _value(slot: Slot, request: BaseModel) -> Any:
    value: Any = request
    for name in slot.path:
        value = getattr(value, name)
    return value


def _curl(kind: Kind, body: str, url: str, key: bool) -> str:
    words = ["curl", "-X", "POST", f"{url.rstrip('/')}/v1/probes/{kind.name}"]
    line = shlex.join(words)
    if key:
        # Not quoted by shlex: the shell puts the key in.
        line += f' -H "{KEY_HEADER}"'
    if kind.request is not None:
        line += " -H 'Content-Type: application/json' -d " + shlex.quote(body)
    return line
