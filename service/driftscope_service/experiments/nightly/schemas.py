"""Bodies of /v1/nightly and /v1/schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    model_validator,
)
from pydantic_core import core_schema, to_jsonable_python

from driftscope_probes.device.environment_change import Change
from driftscope_probes.nightly.report import ItemReport, NightConfig, NightlyReport
from driftscope_probes.verdicts import NOT_RUN
from driftscope_service.experiments.nightly.store import Night

#: Most items of one night: the shipped file has about eighty.
MAX_ITEMS = 5_000
#: Three per item: expectation, a setting and bits; the environment has fewer names than that.
MAX_CHANGES = 4 * MAX_ITEMS
Text = Annotated[str, Field(max_length=5000)]
_AWARE = core_schema.no_info_after_validator_function(
    to_jsonable_python,
    core_schema.datetime_schema(tz_constraint="aware"),
    serialization=core_schema.to_string_ser_schema(),
)
#: A time with its zone, kept as text.
Moment = Annotated[str, GetPydanticSchema(lambda source, handler: _AWARE)]


class NightlyItem(ItemReport):
    """An item of a night; what else it carries is kept as it is."""

    id: str = Field(min_length=1, max_length=300)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    replay: str | None = Field(max_length=10_000)

    @model_validator(mode="after")
    def _says_why_not(self) -> Self:
        if self.verdict in NOT_RUN.values() and not isinstance(self.detail.get("reason"), str):
            raise ValueError("an item that was not run says why in detail.reason")
        return self


class EnvironmentChangeBody(Change):
    kind: str = Field(max_length=100)
    name: str = Field(max_length=500)


class NightlyConfigBody(NightConfig):
    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, max_length=500)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


#: In the order of the first version of the API.
REQUIRED = (
    *("schema_version", "kind", "exit_code", "started_at", "finished_at", "config", "items"),
    *("environment", "changed_environment", "alarms", "resumed", "notes"),
)


class NightlyResultBody(NightlyReport):
    """The object that `driftscope nightly --json` prints."""

    model_config = ConfigDict(json_schema_extra={"required": list(REQUIRED)})

    started_at: Moment
    finished_at: Moment
    config: NightlyConfigBody
    alarms: tuple[Text, ...] = Field(max_length=MAX_ITEMS)
    items: tuple[NightlyItem, ...] = Field(max_length=MAX_ITEMS)
    changed_environment: tuple[EnvironmentChangeBody, ...] = Field(max_length=MAX_CHANGES)
    resumed: int = Field(ge=0)
    notes: tuple[Text, ...] = Field(max_length=1000)


class NightLinks(BaseModel):
    self: str
    report: str
    report_html: str


class NightBody(BaseModel):
    id: str
    config: NightlyConfigBody
    started_at: datetime
    finished_at: datetime
    exit_code: int = Field(description="0 as expected, 1 something changed, 2 could not run")
    items: list[dict[str, Any]] = Field(
        description="id, verdict, expected, changed, as_expected of every item"
    )
    links: NightLinks

    @staticmethod
    def of(night: Night) -> NightBody:
        return NightBody(
            id=night.report_id,
            config=NightlyConfigBody(name=night.config_name, sha256=night.config_sha256),
            started_at=night.started_at,
            finished_at=night.finished_at,
            exit_code=night.exit_code,
            items=night.outcomes,
            links=NightLinks(
                self=f"/v1/nightly/{night.report_id}",
                report=f"/v1/reports/{night.report_id}",
                report_html=f"/reports/{night.report_id}",
            ),
        )


class NightPage(BaseModel):
    nights: list[NightBody] = Field(description="newest first")
    next_cursor: str | None = Field(description="give as `cursor` for the next page")
