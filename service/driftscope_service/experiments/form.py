"""The form of a request: its controls from the pydantic model, and what was typed as a request.

In: the model of a kind's request, or the fields of a posted form. Out: sections of controls with
values, bounds, help and errors; or the JSON that POST /v1/probes/{kind} would get.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

Control: TypeAlias = Literal["choice", "choices", "switch", "number", "text", "list", "lines"]
#: By dotted name of the field, as the browser sends them.
Typed: TypeAlias = Mapping[str, Sequence[str]]
YES, NO = "true", "false"
#: What a field of the request is worth where the model has no default.
MISSING: Final = PydanticUndefined


@dataclass(frozen=True, slots=True)
class Slot:
    """A field of a request that a form can ask for."""

    path: tuple[str, ...]
    field: FieldInfo
    control: Control
    optional: bool
    whole: bool  # the numbers are integers
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def default(self) -> Any:
        return self.field.get_default(call_default_factory=True)

    @property
    def required(self) -> bool:
        return self.field.is_required()


@cache
def slots(model: type[BaseModel]) -> tuple[Slot, ...]:
    """In the order of the model; a field that a client must leave empty has none."""
    return tuple(_slots(model, (), None))


def _slots(
    model: type[BaseModel], above: tuple[str, ...], given: BaseModel | None
) -> Iterator[Slot]:
    """`given`: what the field that holds the model is worth by default, where it has a default."""
    for name, own in model.model_fields.items():
        field = own if given is None else _with_default(own, getattr(given, name))
        parts = _parts(field.annotation)
        kinds = [part for part in parts if part is not NoneType]
        path = (*above, name)
        if len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel):
            inner = field.get_default(call_default_factory=True)
            yield from _slots(kinds[0], path, inner if isinstance(inner, BaseModel) else None)
        elif kinds:
            yield _slot(path, field, kinds, NoneType in parts)


def _with_default(field: FieldInfo, value: Any) -> FieldInfo:
    changed = copy(field)
    changed.default, changed.default_factory = value, None
    return changed


def _slot(path: tuple[str, ...], field: FieldInfo, kinds: list[Any], optional: bool) -> Slot:
    lists = [kind for kind in kinds if get_origin(kind) in (list, tuple)]
    control: Control = "text"
    options: tuple[str, ...] = ()
    whole = int in kinds
    if lists and len(kinds) > 1:
        control = "lines"
    elif lists:
        items = [_bare(part) for part in _parts(get_args(lists[0])[0])]
        whole = int in items
        options = tuple(str(one) for item in items for one in _literals(item))
        control = "choices" if options else "list"
    elif any(_literals(kind) for kind in kinds):
        control, options = "choice", tuple(str(one) for kind in kinds for one in _literals(kind))
    elif kinds == [bool]:
        control, options = ("choice", (YES, NO)) if optional else ("switch", ())
    elif set(kinds) <= {int, float}:
        control = "number"
    return Slot(path, field, control, optional, whole, options)


def _parts(annotation: Any) -> tuple[Any, ...]:
    annotation = _bare(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return tuple(_bare(part) for part in get_args(annotation))
    return (annotation,)


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _literals(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


@dataclass(frozen=True, slots=True)
class FormField:
    slot: Slot
    values: tuple[str, ...]  # of its control; one but for choices
    options: tuple[str, ...]
    error: str | None = None
    was: tuple[str, ...] | None = None  # in the job that it began with

    @property
    def name(self) -> str:
        return self.slot.name

    @property
    def label(self) -> str:
        return self.slot.path[-1].replace("_", " ")

    @property
    def help(self) -> str:
        return self.slot.field.description or ""

    @property
    def value(self) -> str:
        return self.values[0] if self.values else ""

    @property
    def standard(self) -> str:
        """The default as it is said beside the control."""
        if self.slot.required:
            return ""
        shown = ", ".join(shown_values(self.slot, self.slot.default))
        return {YES: "yes", NO: "no", "": "none"}.get(shown, shown)

    @property
    def least(self) -> str | None:
        return self._bound(Ge, Gt)

    @property
    def most(self) -> str | None:
        return self._bound(Le, Lt)

    @property
    def bounds(self) -> str:
        least, most = self.least, self.most
        if least is not None and most is not None:
            return f"{least} to {most}"
        return f"at least {least}" if least is not None else f"at most {most}" if most else ""

    @property
    def changed(self) -> bool:
        return self.was is not None and self.was != self.values

    def _bound(self, inside: type[Ge] | type[Le], beyond: type[Gt] | type[Lt]) -> str | None:
        if self.slot.control != "number":
            return None
        for one in self.slot.field.metadata:
            if isinstance(one, Ge | Le) and isinstance(one, inside):
                return f"{one.ge if isinstance(one, Ge) else one.le}"
            if isinstance(one, Gt | Lt) and isinstance(one, beyond):
                limit: Any = one.gt if isinstance(one, Gt) else one.lt
                step = (1 if isinstance(one, Gt) else -1) if self.slot.whole else 0
                return f"{limit + step}"
        return None


@dataclass(frozen=True, slots=True)
class Section:
    title: str  # empty: the first one, which is always open
    fields: tuple[FormField, ...]

    @property
    def open(self) -> bool:
        return not self.title or any(field.error or field.changed for field in self.fields)


@dataclass(frozen=True, slots=True)
class Form:
    sections: tuple[Section, ...]
    errors: tuple[str, ...] = ()  # of no single field

    @property
    def fields(self) -> tuple[FormField, ...]:
        return tuple(field for section in self.sections for field in section.fields)

    @property
    def valid(self) -> bool:
        return not self.errors and not any(field.error for field in self.fields)

    @property
    def changed(self) -> tuple[FormField, ...]:
        return tuple(field for field in self.fields if field.changed)


def form_of(
    model: type[BaseModel] | None,
    typed: Typed,
    offered: Mapping[str, Sequence[str]],
    *,
    was: Typed | None = None,
    faults: Sequence[tuple[Sequence[str | int], str]] = (),
) -> Form:
    """`typed`: of every control. `offered`: what the service has for fields that name one of its
    own things. `faults`: places in the request, as pydantic gives them, with what is wrong."""
    every = () if model is None else slots(model)
    said, rest = _placed(every, faults)
    by_section: dict[str, list[FormField]] = {}
    for slot in every:
        options = tuple(offered.get(slot.name, slot.options))
        values = tuple(typed.get(slot.name, ()))
        if slot.control == "switch":
            # A browser sends nothing for a box that is not checked.
            values = (YES if YES in values else NO,)
        if slot.name in offered and values and values[0] not in ("", *options):
            options = (*options, values[0])
        control = replace(slot, control="choice") if slot.name in offered else slot
        section = " ".join(slot.path[:-1])
        before = None if was is None else tuple(was.get(slot.name, ()))
        by_section.setdefault(section, []).append(
            FormField(control, values, options, said.get(slot.name), before)
        )
    ordered = sorted(by_section.items(), key=lambda one: one[0] != "")
    return Form(tuple(Section(name, tuple(group)) for name, group in ordered), tuple(rest))


def _placed(
    every: Sequence[Slot], faults: Sequence[tuple[Sequence[str | int], str]]
) -> tuple[dict[str, str], list[str]]:
    """Each fault at the field it belongs to, the first one of each; and those of no field."""
    said: dict[str, str] = {}
    rest: list[str] = []
    paths = {slot.path: slot.name for slot in every}
    for place, message in faults:
        parts = tuple(str(part) for part in place)
        found = [paths[parts[:size]] for size in range(len(parts), 0, -1) if parts[:size] in paths]
        if found:
            said.setdefault(found[0], message)
        else:
            rest.append(f"{'.'.join(parts)}: {message}" if parts else message)
    return said, rest


def typed_of(model: type[BaseModel] | None, request: Mapping[str, Any]) -> dict[str, list[str]]:
    """What the controls hold for the JSON of a request; its default where it says nothing."""
    every = () if model is None else slots(model)
    return {slot.name: shown_values(slot, _value(slot, request)) for slot in every}


def _value(slot: Slot, request: Mapping[str, Any]) -> Any:
    value: Any = request
    for name in slot.path:
        if not isinstance(value, Mapping) or name not in value:
            return slot.default
        value = value[name]
    return value


def shown_values(slot: Slot, value: Any) -> list[str]:
    if value is None or value is MISSING:
        return [] if slot.control == "choices" else [""]
    if slot.control == "choices":
        return [str(one) for one in value]
    if slot.control == "list":
        return [", ".join(map(str, value))]
    if slot.control == "lines" and not isinstance(value, int):
        return ["\n".join(map(_line, value))]
    if isinstance(value, bool):
        return [YES if value else NO]
    return [str(value)]


def _line(item: Any) -> str:
    """A text as it is, where its line can be read again as that text; anything else as JSON."""
    if isinstance(item, BaseModel):
        item = item.model_dump(mode="json")
    if isinstance(item, list):
        item = [one.model_dump(mode="json") if isinstance(one, BaseModel) else one for one in item]
    plain = isinstance(item, str) and item.strip() != "" and not item.isdecimal()
    if plain and item[0] not in '"[{' and not any(mark in item for mark in "\n\r"):
        return str(item)
    return json.dumps(item, ensure_ascii=False)


def asked_of(model: type[BaseModel] | None, typed: Typed) -> dict[str, Any]:
    """The JSON of the request; values that cannot be read are left as they were typed."""
    asked: dict[str, Any] = {}
    for slot in () if model is None else slots(model):
        place = asked
        for name in slot.path[:-1]:
            place = place.setdefault(name, {})
        place[slot.path[-1]] = _read(slot, typed.get(slot.name, ()))
    return asked


def _read(slot: Slot, values: Sequence[str]) -> Any:
    if slot.control == "switch":
        return YES in values
    if slot.control == "choices":
        return None if slot.optional and not values else list(values)
    text = values[-1] if values else ""
    if not text.strip() and slot.optional:
        return None
    if slot.control == "list":
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return [_number(part) for part in parts] if slot.whole else parts
    if slot.control == "lines":
        lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
        if slot.whole and len(lines) == 1 and lines[0].strip().isdecimal():
            return int(lines[0])
        return [_item(line) for line in lines]
    if slot.options == (YES, NO):
        return {YES: True, NO: False}.get(text, text)
    return _number(text.strip()) if slot.whole else text


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() else text


def _item(line: str) -> Any:
    if line[0] in '"[':
        try:
            return json.loads(line)
        except ValueError:
            return line
    return line
