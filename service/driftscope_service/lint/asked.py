"""What is asked of a lint over HTTP: named texts, a command, an environment, and another side.

In: the body of POST /v1/lint or the form of /lint. Out: a report and, where two sides are given,
what differs. Texts only: a name is never opened, and no address is followed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.against import Comparison, compare_hosts
from driftscope_probes.lint.base import Settings
from driftscope_probes.lint.host import Host, host_of, host_of_settings
from driftscope_probes.lint.readers.registry import document, settings_in
from driftscope_probes.lint.report import LintReport, lint_report
from driftscope_probes.lint.rules.registry import ALL_RULES
from driftscope_service.http.errors import InvalidField

#: A recipe, its model's three files, a script and an environment are six.
MOST_FILES: Final = 50
#: A resolved configuration of verl has 40 kB; YAML of this size is parsed in half a second.
MOST_TEXT: Final = 524_288
MOST_COMMAND: Final = 65_536
#: A name is a label of findings; with a path it would look as if the service had opened it.
FileName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^/\\]+$")]
FileText = Annotated[str, StringConstraints(max_length=MOST_TEXT)]
#: What findings of a command line and of an environment give as their place.
COMMAND, ENVIRONMENT = "command", "environment.json"


class LintSide(BaseModel):
    """One host or run."""

    model_config = ConfigDict(extra="forbid")

    files: dict[FileName, FileText] = Field(
        default={},
        max_length=MOST_FILES,
        description="contents by name: config.json, recipe.yaml, run.toml, launch.sh, pip.txt; the "
        "suffix says the form",
    )
    command: str | None = Field(
        None, max_length=MOST_COMMAND, description="a command line, such as vllm serve …"
    )
    environment: dict[str, Any] | None = Field(
        None, description="what `driftscope environment` prints, or variables by name"
    )

    @property
    def empty(self) -> bool:
        return not (self.files or self.command or self.environment)


class LintBody(LintSide):
    against: LintSide | None = Field(None, description="another host or week to compare with")
    ignore: list[Annotated[str, StringConstraints(max_length=128)]] = Field(
        default=[], max_length=500, description="names of rules to leave out"
    )


@dataclass(frozen=True, slots=True)
class Answered:
    report: LintReport
    comparison: Comparison | None  # None: only one side was given

    def to_dict(self) -> dict[str, Any]:
        against = None if self.comparison is None else self.comparison.to_dict()
        return {**self.report.to_dict(), "against": against}


def answer(asked: LintBody) -> Answered:
    """Raises InvalidField for what is empty, not understood, or no rule."""
    if asked.empty:
        raise InvalidField("", "nothing is given to look at", remedy="give files or a command.")
    known = {rule.name for rule in ALL_RULES}
    for index, name in enumerate(asked.ignore):
        if name not in known:
            remedy = "see docs/lint.md for the names of rules."
            raise InvalidField(f"/ignore/{index}", f"there is no rule {name!r}", remedy=remedy)
    compares = asked.against is not None and not asked.against.empty
    settings, host = _read(asked, "", facts=compares)
    comparison = None
    if compares and asked.against is not None:
        other = _read(asked.against, "/against", facts=True)[1]
        try:
            comparison = compare_hosts(host, other)
        except RequestError as error:
            raise InvalidField("/against", error.message, remedy=error.remedy) from None
    return Answered(lint_report(settings, asked.ignore), comparison)


def _read(side: LintSide, pointer: str, *, facts: bool) -> tuple[Settings, Host]:
    """`facts`: what holds none of a set-up's settings, such as a list of packages, is read too."""
    settings, host = Settings(), Host(())
    for name, text, place in _texts(side, pointer):
        try:
            one = document(name, text)
            found = settings_in(one)
            told = host_of([one]) if facts else Host(())
            if found is None and not told.facts:
                raise RequestError(
                    f"nothing in {name} is understood",
                    remedy="see docs/lint.md for what is read, and give the suffix of its form.",
                )
        except RequestError as error:
            raise InvalidField(place, error.message, remedy=error.remedy) from None
        settings += found or Settings()
        host += told
    return settings, host + host_of_settings(settings)


def _texts(side: LintSide, pointer: str) -> list[tuple[str, str, str]]:
    """Name, text and JSON pointer, in the order in which a later one overrides an earlier one."""
    texts = [(name, text, f"{pointer}/files/{name}") for name, text in side.files.items()]
    if side.command:
        texts.append((COMMAND, side.command, f"{pointer}/command"))
    if side.environment:
        told = _environment(side.environment)
        texts.append((ENVIRONMENT, json.dumps(told), f"{pointer}/environment"))
    return texts


def _environment(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Variables alone are an environment of which nothing else is known."""
    if isinstance(given.get("variables"), Mapping):
        return {"packages": {}, **given}
    return {"packages": {}, "variables": given}
