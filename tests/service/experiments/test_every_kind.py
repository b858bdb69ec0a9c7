"""Every kind of experiment has every part; a kind that lacks one is found out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.main import get_command
from typer.testing import CliRunner

from driftscope_probes.children import Crash
from driftscope_service.app import create_app
from driftscope_service.cli.main import build_app
from driftscope_service.demo import load
from driftscope_service.demo.load import add_report
from driftscope_service.experiments.form import slots
from driftscope_service.experiments.kind import PLAIN_POLICY, SCRIPT_POLICY, CommandLine, Kind
from driftscope_service.experiments.registry import EXPERIMENTS, load_kinds
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.jobs.job import explain_crash
from driftscope_service.service import Service, open_service
from driftscope_service.settings import Settings

from .asked_alike import check_alike

DOCS = Path(__file__).parents[3] / "docs"
KINDS = list(load_kinds().values())


@dataclass(frozen=True)
class Served:
    """A service that has the recordings of every kind."""

    service: Service
    client: TestClient

    def report_id(self, kind: Kind) -> str:
        with self.service.database.read() as connection:
            stored = ReportRepository(connection).latest(kind.name)
        assert stored is not None
        return stored.id


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with open_service(Settings(data_dir=tmp_path_factory.mktemp("kinds"))) as service:
        for kind in service.kinds.values():
            for name in kind.recordings:
                assert add_report(kind, name, service)
                assert not add_report(kind, name, service)
        with TestClient(create_app(service), base_url="http://127.0.0.1:8321") as client:
            yield Served(service, client)


def command(kind: Kind, _served: Served) -> None:
    app = build_app([kind.package])
    own = commands(get_command(app)) - commands(get_command(build_app([])))
    assert own
    for words in own:
        help_ = CliRunner().invoke(app, [*words, "--help"])
        assert help_.exit_code == 0, help_.output


def commands(command: Any, words: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The words of every command below `command`."""
    below = getattr(command, "commands", {})
    found = (commands(one, (*words, name)) for name, one in below.items())
    return set().union(*found) if below else {words}


def job(kind: Kind, served: Served) -> None:
    request = None
    if kind.request is not None:
        examples: Any = kind.request.model_config["json_schema_extra"]
        request = kind.request.model_validate(examples["examples"][0])
    asked = json.loads(json.dumps(kind.job(request, served.service.settings)))
    assert asked["kind"] == kind.name and asked["request"]


def runner(kind: Kind, _served: Served) -> None:
    spec = find_spec(kind.runner)
    assert spec is not None and spec.origin is not None
    assert "\ndef run_probe(" in Path(spec.origin).read_text(encoding="utf-8")
    # What a job that an older version queued gets.
    assert kind.runner == f"driftscope_probes.{kind.name}.run"


def crash_words(kind: Kind, _served: Served) -> None:
    error = explain_crash(kind.smaller, Crash("driftscope_probes.run_probe", -9, ""))
    assert "SIGKILL" in str(error) and str(error).endswith(f": {kind.smaller}")
    assert kind.smaller.endswith(".")


def summary(kind: Kind, _served: Served) -> None:
    made = kind.summarise(kind.read(load.recorded_report(kind, kind.recordings[-1])))
    assert json.loads(json.dumps(made)) == made
    assert kind.sentence(made).endswith(".")


def page(kind: Kind, served: Served) -> None:
    report_id = served.report_id(kind)
    path = kind.report_page(report_id)
    for listing in ("/probes", f"/probes?kind={kind.name}", "/jobs"):
        assert f'href="{path}"' in served.client.get(listing).text, listing
    shown = served.client.get(path, follow_redirects=False)
    assert shown.status_code == 200
    assert "<code>None" not in shown.text
    assert (kind.page is not None) == (kind.label in shown.text and path.startswith("/probes"))
    for plot in () if kind.page is None else kind.page.plots:
        data = served.client.get(f"/probes/{report_id}/plots/{plot}.json")
        assert data.status_code == 200 and data.json()["rows"]


def self_contained_page(kind: Kind, served: Served) -> None:
    answer = served.client.get(f"/reports/{served.report_id(kind)}")
    assert answer.status_code == 200 and answer.text.startswith("<!doctype html>")
    assert "<code>None" not in answer.text
    scripts = "<script" in answer.text
    assert answer.headers["content-security-policy"] == kind.policy
    assert kind.policy == (SCRIPT_POLICY if scripts else PLAIN_POLICY)


def metrics(kind: Kind, served: Served) -> None:
    offered = frozenset(served.service.settings.model_names)
    with served.service.database.read() as connection:
        families = list(kind.families(connection, offered))
    names = {family.metric for family in families}
    text = "".join(family.text(openmetrics=False) for family in families)
    samples = [line for line in text.splitlines() if line[0] != "#"]
    assert samples and names == set(kind.metrics)
    assert set(samples) <= set(served.client.get("/metrics").text.splitlines())


def docs(kind: Kind, _served: Served) -> None:
    assert f"({kind.docs})" in (DOCS / "README.md").read_text(encoding="utf-8")
    assert kind.name in (DOCS / kind.docs).read_text(encoding="utf-8").lower()


def openapi(kind: Kind, served: Served) -> None:
    document = served.client.get("/openapi.json").json()
    operation = document["paths"][f"/v1/probes/{kind.name}"]["post"]
    assert operation["operationId"] == kind.operation
    assert ("requestBody" in operation) == (kind.request is not None)
    schemas = document["components"]["schemas"]
    assert kind.name in schemas["JobBody"]["properties"]["kind"]["enum"]
    scheduled = schemas["ScheduleRequest"]["properties"]["job"]["discriminator"]["mapping"]
    assert (kind.name in scheduled) == kind.schedulable
    described = document["paths"]["/v1/reports/{report_id}"]["get"]["description"]
    assert kind.report_holds in " ".join(described.split())


def form(kind: Kind, served: Served) -> None:
    """A form whose defaults are those of the API, with the same request in two other ways."""
    page = served.client.get(f"/probes/new/{kind.name}")
    assert page.status_code == 200 and shlex.join(kind.command.words) in page.text
    assert f"/v1/probes/{kind.name}" in page.text
    if kind.request is None:
        return
    for slot in slots(kind.request):
        assert f'name="{slot.name}"' in page.text, slot.name
    assert check_alike(kind, served.service.settings) > 2


def kept(kind: Kind, served: Served) -> None:
    """Its commands hand their report on, and the store takes it from elsewhere."""
    report = load.recorded_report(kind, kind.recordings[-1])
    origin = {"host": "h", "command": "driftscope"}
    answer = served.client.post("/v1/reports", json={**report, "origin": origin})
    assert answer.status_code == 200, answer.text  # the recording itself
    refused = served.client.post("/v1/reports", json={"kind": kind.name})
    assert refused.status_code == 422
    command: Any = get_command(build_app([kind.package]))
    for word in kind.command.words[1:]:
        command = command.commands[word]
    assert {"store", "data_dir", "url"} <= {one.name for one in command.params}


Part = Callable[[Kind, Served], None]
PARTS: tuple[Part, ...] = (
    *(command, job, runner, crash_words, summary, page, self_contained_page, metrics, docs),
    *(openapi, form, kept),
)
#: Per part what a careless author of a kind might give.
FAULTS: Mapping[Part, Mapping[str, Any]] = {
    command: {"package": "driftscope_service.http"},
    job: {"prepare": lambda request, settings: {}},
    runner: {"runner": "driftscope_probes.kernels.request"},
    crash_words: {"smaller": ""},
    summary: {"sentence": lambda summary: ""},
    page: {"page": None},
    self_contained_page: {"policy": PLAIN_POLICY},
    metrics: {"families": lambda connection, offered: iter(())},
    docs: {"docs": "paired-probe.md"},
    openapi: {"operation": "start_probe"},
    form: {"command_line": CommandLine(("driftscope", "probe", "pared"))},
    kept: {"command_line": CommandLine(("driftscope", "probe", "pared"))},
}


def name_of(value: Kind | Part) -> str:
    return value.name if isinstance(value, Kind) else value.__name__


@pytest.mark.parametrize("part", PARTS, ids=name_of)
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_every_kind_has_every_part(kind: Kind, part: Part, served: Served) -> None:
    part(kind, served)


@pytest.mark.parametrize("part", PARTS, ids=name_of)
def test_a_kind_without_the_part_is_found(part: Part, served: Served) -> None:
    with pytest.raises((AssertionError, LookupError, ImportError)):
        part(replace(KINDS[0], **FAULTS[part]), served)


def test_the_registry_is_the_folders() -> None:
    folder = Path(__file__).parents[3] / "service/driftscope_service/experiments"
    assert {path.parent.name for path in folder.glob("*/kind.py")} == {
        name.rsplit(".", 1)[1] for name in EXPERIMENTS
    }
