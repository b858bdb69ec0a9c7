"""What of an OpenAPI document breaks programs that were written against an older one.

    python tests/service/openapi_changes.py OLD.json NEW.json

A client may send what it sent before and read what it read before: so requests may only be accepted
more widely, and answers may only gain. Exit code 1 where something breaks.
"""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

METHODS: Final = ("get", "put", "post", "delete", "patch")
#: Of a request: bounds that may rise or vanish but not fall, and the reverse.
UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems")
Side = Literal["request", "answer"]
Json = Mapping[str, Any]


def breaking_changes(old: Json, new: Json) -> list[str]:
    """Sentences, each with its operation; empty: none."""
    return list(dict.fromkeys(_of_paths(old, new)))


def _of_paths(old: Json, new: Json) -> Iterator[str]:
    for path, operations in old["paths"].items():
        if path not in new["paths"]:
            yield f"{path} is gone"
            continue
        for method in METHODS:
            if method not in operations:
                continue
            name = f"{method.upper()} {path}"
            if method not in new["paths"][path]:
                yield f"{name} is gone"
                continue
            before, after = operations[method], new["paths"][path][method]
            yield from _of_parameters(name, before, after, old, new)
            yield from _of_body(name, before, after, old, new)
            yield from _of_answers(name, before, after, old, new)


def _of_parameters(name: str, before: Json, after: Json, old: Json, new: Json) -> Iterator[str]:
    had = {(one["in"], one["name"]): one for one in before.get("parameters", ())}
    has = {(one["in"], one["name"]): one for one in after.get("parameters", ())}
    for key, one in had.items():
        where = f"{name}: {key[0]} parameter {key[1]}"
        if key not in has:
            yield f"{where} is gone"
            continue
        yield from _of_schema(where, one["schema"], has[key]["schema"], "request", old, new, ())
    for key, one in has.items():
        if one.get("required") and not had.get(key, {}).get("required"):
            yield f"{name}: {key[0]} parameter {key[1]} is required now"


def _of_body(name: str, before: Json, after: Json, old: Json, new: Json) -> Iterator[str]:
    had, has = before.get("requestBody"), after.get("requestBody")
    if has is None:
        return
    if has.get("required") and not (had or {}).get("required"):
        yield f"{name}: a body is required now"
    for kind, content in (had or {}).get("content", {}).items():
        if kind not in has["content"]:
            yield f"{name}: a body of {kind} is not accepted any more"
            continue
        schemas = content.get("schema", {}), has["content"][kind].get("schema", {})
        yield from _of_schema(f"{name}: body", *schemas, "request", old, new, ())


def _of_answers(name: str, before: Json, after: Json, old: Json, new: Json) -> Iterator[str]:
    for status, answer in before["responses"].items():
        if not status.startswith("2"):
            continue
        if status not in after["responses"]:
            yield f"{name}: the answer {status} is gone"
            continue
        has = after["responses"][status].get("content", {})
        for kind, content in answer.get("content", {}).items():
            if kind not in has:
                yield f"{name}: {status} has no {kind} any more"
                continue
            schemas = content.get("schema", {}), has[kind].get("schema", {})
            yield from _of_schema(f"{name}: {status}", *schemas, "answer", old, new, ())


def _of_schema(
    where: str, before: Json, after: Json, side: Side, old: Json, new: Json, seen: tuple[str, ...]
) -> Iterator[str]:
    reference = before.get("$ref", "")
    if reference in seen:
        return
    seen = (*seen, reference) if reference else seen
    before, after = _resolved(before, old), _resolved(after, new)
    if reference and not before:
        return  # the older document said nothing of it
    yield from _of_kind(where, before, after, side)
    yield from _of_values(where, before, after, side)
    yield from _of_properties(where, before, after, side, old, new, seen)
    if "items" in before and "items" in after:
        parts = (before["items"], after["items"])
        yield from _of_schema(f"{where}[]", *parts, side, old, new, seen)


def _resolved(schema: Json, document: Json) -> Json:
    """Through a reference, and through `anyOf` with null to what is not null."""
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            # What resolves to nothing says nothing; that every reference does is another test.
            found = found.get(part, {})
        schema = found
    for name in ("anyOf", "oneOf"):
        kinds = [one for one in schema.get(name, ()) if one.get("type") != "null"]
        if len(kinds) == 1:
            nullable = len(schema[name]) > 1
            return {**_resolved(kinds[0], document), "nullable": nullable}
    return schema


def _of_kind(where: str, before: Json, after: Json, side: Side) -> Iterator[str]:
    if "type" in before and "type" in after and before["type"] != after["type"]:
        widened = side == "request" and (before["type"], after["type"]) == ("integer", "number")
        narrowed = side == "answer" and (before["type"], after["type"]) == ("number", "integer")
        if not (widened or narrowed):
            yield f"{where} is {after['type']}, it was {before['type']}"
    if side == "request" and before.get("nullable") and after.get("nullable") is False:
        yield f"{where} may not be null any more"
    if side == "answer" and before.get("nullable") is False and after.get("nullable"):
        yield f"{where} may be null now"


def _of_values(where: str, before: Json, after: Json, side: Side) -> Iterator[str]:
    if side == "answer":
        return
    had, has = before.get("enum"), after.get("enum")
    if has is not None and had is not None:
        for gone in sorted(set(map(str, had)) - set(map(str, has))):
            yield f"{where} does not accept {gone} any more"
    if has is not None and had is None and "const" not in before:
        yield f"{where} accepts only {', '.join(map(str, has))} now"
    for names, stricter in ((UPPER, operator.lt), (LOWER, operator.gt)):
        for name in names:
            if name in after and (name not in before or stricter(after[name], before[name])):
                yield f"{where}: {name} is {after[name]} now, it was {before.get(name, 'open')}"


def _of_properties(
    where: str, before: Json, after: Json, side: Side, old: Json, new: Json, seen: tuple[str, ...]
) -> Iterator[str]:
    had, has = before.get("properties", {}), after.get("properties", {})
    for name, schema in had.items():
        if name not in has:
            closed = after.get("additionalProperties") is False
            if side == "answer" or closed:
                yield f"{where}.{name} is gone"
            continue
        yield from _of_schema(f"{where}.{name}", schema, has[name], side, old, new, seen)
    required_before, required = set(before.get("required", ())), set(after.get("required", ()))
    if side == "request":
        for name in sorted(required - required_before):
            yield f"{where}.{name} is required now"
    else:
        for name in sorted((required_before - required) & has.keys()):
            yield f"{where}.{name} may be absent now"


def main() -> int:
    old, new = (json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:3])
    changes = breaking_changes(old, new)
    print("\n".join(changes) or "nothing breaks")
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
