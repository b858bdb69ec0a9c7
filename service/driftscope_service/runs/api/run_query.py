"""Parameters of the list of runs, the same in the API and in the address of its page."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Depends, Query
from pydantic import AfterValidator, BeforeValidator, StringConstraints

from driftscope_probes.diagnosis.cause import ComparisonVerdict
from driftscope_service.http.errors import InvalidField
from driftscope_service.runs.store.progress import STALE_AFTER, STALE_INTERVALS, Progress
from driftscope_service.runs.store.search import (
    MAX_PLACE_LENGTH,
    Order,
    Place,
    RunFilter,
    decode_place,
)
from driftscope_service.store.tables import RUN_TEXT_LENGTH

#: All that a browser shows at once without a pause.
MOST_RUNS: Final = 500
#: More than anybody would name; each is one condition of the query.
MOST_VALUES: Final = 16
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")


def _given(value: Any) -> Any:
    """What a form leaves empty asks nothing."""
    if isinstance(value, list):
        return [one for one in value if one != ""]
    return None if value == "" else value


def _end_of_day(value: Any) -> Any:
    if isinstance(value, str) and _DATE.fullmatch(value):
        return f"{value}T23:59:59.999999Z"
    return value


def _plain(value: str) -> str:
    if "\0" in value:
        raise ValueError("the character NUL is in no text here")
    return value


def _utc(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    # The database holds years of four digits in UTC.
    if not 1 < value.year < 9999:
        raise ValueError("the year is out of range")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Word = Annotated[str, StringConstraints(max_length=RUN_TEXT_LENGTH), AfterValidator(_plain)]
Text = Annotated[Word | None, BeforeValidator(_given)]
STALE_MEANS: Final = (
    f"`stale`: not finished, and silent for longer than {STALE_INTERVALS} of its own step "
    f"intervals and {int(STALE_AFTER.total_seconds() // 60)} minutes (an hour before its second "
    "step); `resumed`: running, in a later attempt"
)


def run_filter(
    text: Annotated[
        Text, Query(description="words, each of which is in the name, the note, a tag or a label")
    ] = None,
    model: Annotated[
        Text, Query(description="of this model; case does not matter, as below")
    ] = None,
    framework: Annotated[Text, Query(description="of this training framework")] = None,
    engine: Annotated[
        Text, Query(description="of this engine: `vllm` finds `vllm 0.32.0` too")
    ] = None,
    dtype: Annotated[Text, Query(description="of the rollout or the trainer")] = None,
    state: Annotated[
        list[Progress],
        BeforeValidator(_given),
        Query(max_length=MOST_VALUES, description=f"any of them. {STALE_MEANS}"),
    ] = [],  # noqa: B006
    verdict: Annotated[
        list[ComparisonVerdict],
        BeforeValidator(_given),
        Query(max_length=MOST_VALUES, description="of the last step, any of them"),
    ] = [],  # noqa: B006
    cause: Annotated[
        Text,
        Query(description="first cause of the last step, or of the steps together where surer"),
    ] = None,
    tag: Annotated[
        list[Word],
        BeforeValidator(_given),
        Query(max_length=MOST_VALUES, description="every one of them"),
    ] = [],  # noqa: B006
    since: Annotated[
        datetime | None,
        AfterValidator(_utc),
        BeforeValidator(_given),
        Query(description="last PUT, shard or step at this time or later; UTC without a zone"),
    ] = None,
    until: Annotated[
        datetime | None,
        AfterValidator(_utc),
        BeforeValidator(_end_of_day),
        BeforeValidator(_given),
        Query(description="at this time or before; of a date its end"),
    ] = None,
) -> RunFilter:
    return RunFilter(
        text=text,
        model=model,
        framework=framework,
        engine=engine,
        dtype=dtype,
        states=tuple(dict.fromkeys(state)),
        verdicts=tuple(dict.fromkeys(verdict)),
        cause=cause,
        tags=tuple(dict.fromkeys(tag)),
        since=since,
        until=until,
    )


AskedFilter = Annotated[RunFilter, Depends(run_filter)]
AskedOrder = Annotated[
    Order,
    Query(
        description="`activity`: the latest first; `worst`: by verdict, then by excess; `name`: A "
        "first; `created`: the newest first"
    ),
]
RunLimit = Annotated[int, Query(ge=1, le=MOST_RUNS)]
RunCursor = Annotated[
    Annotated[str, StringConstraints(max_length=MAX_PLACE_LENGTH)] | None,
    BeforeValidator(_given),
    Query(description="next_cursor of a page in the same order"),
]


def asked_place(
    cursor: str | None,
    order: Order,
    *,
    remedy: str = "give next_cursor of a page in the same order, or leave it out.",
) -> Place | None:
    """Raises InvalidField."""
    try:
        return None if cursor is None else decode_place(cursor, order)
    except ValueError as error:
        raise InvalidField("query/cursor", str(error), remedy=remedy) from None
