"""The base of what a client asks for: no unknown fields, and numbers that are numbers.

Pydantic alone takes `false` for 0 and "8" for 8, against the JSON schema that the API publishes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

NUMBERS = frozenset({int, float})
#: Of a wrong value, in its error.
MOST_SHOWN = 40
#: The context of a validation whose values come from a form, where every number is text.
FORM: Final[dict[str, str]] = {"from": "form"}


class RequestModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        taken = set(_leaves(cls.model_fields[info.field_name].annotation))
        if NUMBERS & taken:
            wrong = (bool,) if info.context is FORM else (bool, str)
            refused = tuple(kind for kind in wrong if not _takes(taken, kind))
            for one in _values(value):
                if isinstance(one, refused):
                    raise ValueError(f"{str(one)[:MOST_SHOWN]!r} is not a number")
        return value


def _takes(leaves: set[Any], kind: type) -> bool:
    """A literal or an enumeration of texts is given as text."""
    kinds = (leaf if isinstance(leaf, type) else type(leaf) for leaf in leaves)
    return any(issubclass(one, kind) for one in kinds)


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
