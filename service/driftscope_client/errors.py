"""What can go wrong with a push: one exception, with what the service said and what to do."""

from __future__ import annotations


class DriftscopeError(Exception):
    """A step was not taken. `status`: of the HTTP answer; None where there was none.

    `remedy` says what to do; it stands in str() as well.
    """

    def __init__(self, message: str, *, remedy: str, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.status = status

    def __str__(self) -> str:
        return f"{self.message}\nWhat to do: {self.remedy}"


class MalformedStep(DriftscopeError):
    """The tensors do not make up a step; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message, remedy="see docs/client.md, and docs/push-format.md for the tensors."
        )
