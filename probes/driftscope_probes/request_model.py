"""The base of what a client asks for: no unknown fields, and numbers that are numbers.

Pydantic alone takes `false` for 0, against the JSON schema that the API publishes. Text that spells
a number stays one: forms and command lines have nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

NUMBERS = frozenset({int, float})
T = TypeVar("T", bound=str)


class RequestModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        taken = set(_leaves(cls.model_fields[info.field_name].annotation))
        if NUMBERS & taken and bool not in taken:
            for one in _values(value):
                if isinstance(one, bool):
                    raise ValueError(f"{one} is not a number")
        return value


def unique(values: list[T], name: str) -> list[T]:
    """Raises ValueError where one of them is there twice."""
    if len(set(values)) != len(values):
        raise ValueError(f"{name} names a value twice: {', '.join(values)}")
    return values


def _leaves(annotation: Any) -> Iterator[Any]:
    """`int` and `None` of `tuple[int, ...] | None`; of a literal its values."""
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for part in inner:
        yield from _leaves(part)


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _values(one)
    else:
        yield value
