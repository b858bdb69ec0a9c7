"""What reports are made of: frozen values, read from stored JSON and written as the same JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A field that another version did not write stays absent; one that it added is kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self:
        """Raises ValidationError. Requests inside may have fields of a newer version, too."""
        return cls.model_validate(stored, extra="allow")

    def to_dict(self) -> dict[str, Any]:
        """JSON values. A default that was not given is absent: give every field."""
        return self.model_dump(mode="json", exclude_unset=True)
