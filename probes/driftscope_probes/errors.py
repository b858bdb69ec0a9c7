"""Errors that a user can cause: what was given, what is accepted, what to do next.

They cross process boundaries as JSON (`to_dict` / `from_dict`), so that a child process
fails with the same words that the caller then prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ProbeError(Exception):
    """Base of all errors shown to a user; `remedy` says what to do."""

    kinds: ClassVar[dict[str, type[ProbeError]]] = {}

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        ProbeError.kinds[cls.__name__] = cls

    def __str__(self) -> str:
        return f"{self.message}\nWhat to do: {self.remedy}"

    def to_dict(self) -> dict[str, str]:
        return {"error": type(self).__name__, "message": self.message, "remedy": self.remedy}

    @staticmethod
    def from_dict(fields: Mapping[str, str]) -> ProbeError:
        kind = ProbeError.kinds.get(fields["error"], ProbeError)
        return kind(fields["message"], remedy=fields["remedy"])


class RequestError(ProbeError):
    """The request itself cannot be carried out (value, combination or prompt)."""


class ModelError(ProbeError):
    """The model is unknown, unsafe to load, incomplete or of an unsupported kind."""


class EngineError(ProbeError):
    """The rollout engine failed, was killed or ran out of memory."""


class TrainerError(ProbeError):
    """The training-mode forward failed, was killed or ran out of memory."""


class TraceError(ProbeError):
    """Two traces cannot be compared, or a trace file is malformed."""


class Cancelled(ProbeError):
    """The run was cancelled from outside."""
