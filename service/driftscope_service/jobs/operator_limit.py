"""A number of a client's request against the operator's limit."""

from __future__ import annotations

from driftscope_service.errors import InvalidField

FROM_OPERATOR = (
    "the service takes this from its own settings; name one of its servers as engine_endpoint"
)


def at_most(pointer: str, given: str, value: float, limit: float, setting: str) -> None:
    """Raises InvalidField, which names the setting that an operator can raise."""
    if value > limit:
        raise InvalidField(
            pointer,
            f"{given} is more than this service allows: {limit:g}",
            remedy=f"lower it, or let the operator raise {setting}.",
        )
