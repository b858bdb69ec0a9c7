"""The tokens of one step, from wherever they lie now: the upload as it came, or the token file.

In: the service, run and step. Out: what a reader makes of them, or
NoTokens with a reason for people.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, cast

from driftscope_probes.push import PushError, StepFormat
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_service.ingest.analysis import StepPart, whole_step
from driftscope_service.service import Service
from driftscope_service.store.step_query import TokenPlace, token_place
from driftscope_service.store.token_files import TokenFileError

#: A larger upload is read once it is a token file, whose parts can be read alone.
MOST_RAW_TOKENS: Final = 2**23
#: While one reads, the upload may become a token file, and that may be dropped.
_ATTEMPTS: Final = 3
_Read = TypeVar("_Read")


class NoTokens(Exception):
    """The text says why, as a sentence."""


@dataclass(frozen=True, slots=True)
class TokenSource:
    service: Service
    run: str
    step: int
    place: TokenPlace

    def read(
        self, of_file: Callable[[Path], _Read], of_step: Callable[[PushedStep], _Read]
    ) -> _Read:
        """Raises NoTokens."""
        place = self.place
        for _ in range(_ATTEMPTS):
            try:
                if place.tokens_file is not None:
                    return of_file(self.service.intake.files.path(place.tokens_file))
                return of_step(self._raw(place))
            except FileNotFoundError:
                place = require_place(self.service, self.run, self.step)
            except (TokenFileError, PushError) as error:
                raise NoTokens("The file with the tokens of this step is damaged.") from error
        raise NoTokens("The tokens of this step are being moved; look again in a moment.")

    def _raw(self, place: TokenPlace) -> PushedStep:
        if place.raw_files is None:
            raise NoTokens(
                "The tokens of this step are no longer kept: they go after "
                f"{self.service.settings.token_ring_steps} newer steps unless a limit was crossed, "
                "or when the disk space for tokens is used up. The numbers stay."
            )
        if place.tokens > MOST_RAW_TOKENS:
            raise NoTokens(
                "The tokens of this step have just arrived and are being put in order; "
                "look again in a moment."
            )
        files = self.service.intake.files
        parts = [
            StepPart(files.path(raw["file"]), cast(StepFormat, raw["format"]))
            for raw in place.raw_files
        ]
        return whole_step(parts)


def token_source(service: Service, run: str, step: int) -> TokenSource:
    """Raises NoTokens where there is no such step."""
    return TokenSource(service, run, step, require_place(service, run, step))


def require_place(service: Service, run: str, step: int) -> TokenPlace:
    with service.database.read() as connection:
        place = token_place(connection, run, step)
    if place is None:
        raise NoTokens("There is no such step.")
    return place
