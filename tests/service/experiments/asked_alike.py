"""One request asked for in three ways: by a form, by the command line, and by curl."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ValidationError
from typer.main import get_command

from driftscope_service.cli.main import build_app
from driftscope_service.experiments.command_words import SameRequest, same_request
from driftscope_service.experiments.form import Slot, asked_of, slots, typed_of
from driftscope_service.experiments.kind import Kind
from driftscope_service.http.errors import InvalidField
from driftscope_service.settings import Settings

MODEL = "tiny-random-llama"


def requests_of(kind: Kind, settings: Settings) -> Iterator[BaseModel]:
    """The one that says least, then for every field one that says something else of it."""
    assert kind.request is not None
    least = json.loads(json.dumps(kind.request.model_config.get("json_schema_extra", {})))
    example: dict[str, Any] = least.get("examples", [{}])[0]
    plain = {name: value for name, value in example.items() if name == "model"}
    for slot in slots(kind.request):
        if slot.required and slot.path[0] not in plain:
            plain[slot.path[0]] = 3
    yield kind.request.model_validate(plain)
    if example:
        yield kind.request.model_validate(example)
    for slot in slots(kind.request):
        for value in _others(slot):
            asked: dict[str, Any] = {**plain}
            place = asked
            for name in slot.path[:-1]:
                place = place.setdefault(name, {})
            place[slot.path[-1]] = value
            try:
                request = kind.request.model_validate(asked)
                kind.job(request, settings)
            except (ValidationError, InvalidField):
                continue  # it fits only with another field
            yield request


def _others(slot: Slot) -> list[Any]:
    if slot.name == "model":
        return [MODEL]
    if slot.control == "choices":
        return [[slot.options[0]], list(reversed(slot.options))]
    if slot.control == "choice":
        return [True, False] if slot.options == ("true", "false") else list(slot.options)
    if slot.control == "switch":
        return [True, False]
    if slot.control == "lines":
        return [3]
    if slot.control == "number":
        return [2, 3, 0.5] if not slot.whole else [2, 5, 16]
    if slot.control == "list":
        return [[2, 3], ["fp16", "bf16+fp32-head"], ["linear"]]
    return ["http://127.0.0.1:8000"]


def by_form(kind: Kind, request: BaseModel) -> BaseModel:
    assert kind.request is not None
    typed = typed_of(kind.request, request.model_dump(mode="json"))
    return kind.request.model_validate(asked_of(kind.request, typed))


def by_command(kind: Kind, same: SameRequest) -> BaseModel:
    """What the printed line asks for, read by the very command."""
    assert kind.request is not None
    command: Any = get_command(build_app([kind.package]))
    program, *words = shlex.split(same.command)
    assert program == "driftscope"
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    context = command.make_context("driftscope", words)
    read = getattr(import_module(f"{kind.package}.command"), "request_of", None)
    if read is None:
        given = {name: context.params[name] for name in kind.request.model_fields}
        return kind.request.model_validate(given)
    asked = read(context.params)
    return kind.request.model_validate(
        asked.model_dump(mode="json") if isinstance(asked, BaseModel) else asked
    )


def by_curl(kind: Kind, same: SameRequest) -> BaseModel:
    assert kind.request is not None
    words = shlex.split(same.curl)
    assert words[words.index("POST") + 1].endswith(f"/v1/probes/{kind.name}")
    return kind.request.model_validate_json(words[words.index("-d") + 1])


def check_alike(kind: Kind, settings: Settings) -> int:
    """Asserts it of every request that `requests_of` gives; how many the command line can say."""
    said = 0
    for request in requests_of(kind, settings):
        same = same_request(kind, request, "http://127.0.0.1:8321/", key=False)
        assert by_form(kind, request) == request
        assert by_curl(kind, same) == request
        if not same.remarks:
            assert by_command(kind, same) == request, same.command
            said += 1
    return said
