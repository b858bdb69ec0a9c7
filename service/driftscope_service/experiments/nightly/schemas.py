"""Bodies of /v1/nightly and /v1/schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from driftscope_probes.verdicts import NOT_RUN, ItemVerdictName
from driftscope_service.experiments.nightly.store import Night

#: Of one night: the shipped file has about eighty items.
MAX_ITEMS = 5_000
#: Of each item its expectation, a setting and its bits; the environment has fewer names than that.
MAX_CHANGES = 4 * MAX_ITEMS
Text = Annotated[str, Field(max_length=5000)]
Changed = Literal["better", "worse", "new"]
ItemId = Annotated[str, Field(min_length=1, max_length=300)]


class NightlyItem(BaseModel):
    """An item of a night; what else it carries is kept as it is."""

    model_config = ConfigDict(extra="allow")

    id: ItemId
    kind: Literal["kernel", "engine"]
    expected: ItemVerdictName
    verdict: ItemVerdictName
    previous: ItemVerdictName | None
    changed: Changed | None
    as_expected: bool
    seconds: float = Field(ge=0, allow_inf_nan=False)
    detail: dict[str, Any]
    replay: str | None = Field(max_length=10_000)

    @model_validator(mode="after")
    def _says_why_not(self) -> Self:
        if self.verdict in NOT_RUN.values() and not isinstance(self.detail.get("reason"), str):
            raise ValueError("an item that was not run says why in detail.reason")
        return self


class EnvironmentChangeBody(BaseModel):
    model_config = ConfigDict(extra="allow")

    kind: str = Field(max_length=100)
    name: str = Field(max_length=500)
    before: Any
    after: Any


class NightlyConfigBody(BaseModel):
    name: str = Field(min_length=1, max_length=500)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class NightlyResultBody(BaseModel):
    """The object that `driftscope nightly --json` prints."""

    model_config = ConfigDict(extra="allow")

    schema_version: Literal["1"]
    kind: Literal["nightly"]
    exit_code: Literal[0, 1, 2]
    started_at: AwareDatetime
    finished_at: AwareDatetime
    config: NightlyConfigBody
    items: list[NightlyItem] = Field(max_length=MAX_ITEMS)
    environment: dict[str, Any]
    changed_environment: list[EnvironmentChangeBody] = Field(max_length=MAX_CHANGES)
    alarms: list[Text] = Field(max_length=MAX_ITEMS)
    resumed: int = Field(ge=0)
    notes: list[Text] = Field(max_length=1000)


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
