"""What reports are made of: frozen values, read from stored JSON and written as the same JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A field that another version did not write stays absent; one that it added is kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self:
        """Raises ValidationError. Requests inside may have fields of a newer version, too."""
        return cls.model_validate(stored, extra="allow")

    def to_dict(self) -> dict[str, Any]:
        """JSON values. Whoever builds a record gives it every field, defaults included."""
        return self.model_dump(mode="json", exclude_unset=True)


Settings = TypeVar("Settings", bound=BaseModel)


def complete(asked: Settings) -> Settings:
    """With every default written out: a report says what was asked for under all later ones."""
    return type(asked).model_validate(asked.model_dump())
