"""The committed dashboards: as generated, as Grafana's schema has them, and free of usual faults.

The rules are those of the public dashboard linter, re-stated; ours are below them. None of this
opens Grafana.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from starlette.routing import Match

from driftscope_dashboards.generate import BOARDS, FOLDER, as_json
from driftscope_service.experiments.registry import load_kinds
from driftscope_service.metrics.metric_names import sample_names
from driftscope_service.metrics_page import every_metric
from driftscope_service.site import ROUTERS

Board = dict[str, Any]
NAMES = sorted(BOARDS)
RULES = Path(__file__).parents[3] / "dashboards" / "prometheus" / "rules"
#: Not ours: of Prometheus itself and of the client library's process collector.
FOREIGN = {"up", "ALERTS", "process_resident_memory_bytes", "process_start_time_seconds"}
#: Of Grafana's unit identifiers, those that the boards use.
UNITS = {"short", "percentunit", "s", "bytes", "Bps", "reqps"}
WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
QUOTED = re.compile(r'"[^"]*"')
COUNTER = re.compile(r"(rate|increase|changes|delta)\([^()]*_total")


def load(name: str) -> Board:
    board = json.loads((FOLDER / f"{name}.json").read_text())
    assert isinstance(board, dict)
    return board


def panels(board: Board) -> Iterator[Board]:
    for panel in board["panels"]:
        inner = panel.get("panels") or []
        yield from inner
        if panel["type"] != "row":
            yield panel


def annotation_queries(board: Board) -> list[Board]:
    found: list[Board] = board["annotations"].get("list", [])
    return found


def expressions(board: Board) -> Iterator[str]:
    for panel in panels(board):
        yield from (target["expr"] for target in panel["targets"])
    yield from (entry["expr"] for entry in annotation_queries(board) if "expr" in entry)


def names_in(expr: str) -> set[str]:
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", QUOTED.sub("", expr))
    bare = re.sub(r"\b(by|on|group_left|without|ignoring)\s*\([^)]*\)", "", bare)
    return {
        word for word in WORD.findall(bare) if word.startswith(("driftscope_", "run:", "job:"))
    } | (set(WORD.findall(bare)) & FOREIGN)


def recorded() -> set[str]:
    names = set()
    for file in RULES.glob("*.yml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            names |= {rule["record"] for rule in group["rules"] if "record" in rule}
    return names


def faults(board: Board) -> list[str]:
    return [text for check in CHECKS for text in check(board)]


def _datasource_is_a_variable(board: Board) -> Iterator[str]:
    kinds = {entry["name"]: entry["type"] for entry in board["templating"]["list"]}
    if kinds.get("datasource") != "datasource":
        yield "no datasource variable"
    for panel in panels(board):
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        if any(source["uid"] != "${datasource}" for source in sources):
            yield f"{panel['title']}: a fixed datasource"


def _panels_are_described(board: Board) -> Iterator[str]:
    for panel in panels(board):
        if not panel.get("title") or not panel.get("description"):
            yield f"panel {panel['id']}: no title or description"
        if "Metric" not in panel.get("description", ""):
            yield f"{panel['title']}: the description does not name its metric"
        if not panel["targets"]:
            yield f"{panel['title']}: no query"


def _units_are_known(board: Board) -> Iterator[str]:
    for panel in panels(board):
        unit = panel["fieldConfig"]["defaults"].get("unit")
        if unit not in UNITS:
            yield f"{panel['title']}: unit {unit!r}"


def _counters_are_rated(board: Board) -> Iterator[str]:
    for expr in expressions(board):
        if "_total" in expr and not COUNTER.search(expr):
            yield f"a counter without rate: {expr}"
        if re.search(r"\brate\((?!.*\$__rate_interval)", expr):
            yield f"rate without $__rate_interval: {expr}"


def _metrics_exist(board: Board) -> Iterator[str]:
    known = (
        {name for metric in every_metric(load_kinds()) for name in sample_names(metric)}
        | recorded()
        | FOREIGN
    )
    for expr in expressions(board):
        if not names_in(expr):
            yield f"no metric in {expr}"
        yield from (f"unknown metric {name}" for name in names_in(expr) - known)


def _variables_reload(board: Board) -> Iterator[str]:
    for variable in board["templating"]["list"]:
        if variable["type"] == "query" and variable["refresh"] != 2:
            yield f"${variable['name']} does not reload with the time range"
    for name in {name for expr in expressions(board) for name in re.findall(r"\$([a-z]+)", expr)}:
        if name not in {variable["name"] for variable in board["templating"]["list"]}:
            yield f"${name} is no variable"


def _frame_is_ours(board: Board) -> Iterator[str]:
    if board["editable"] or "driftscope" not in board["tags"] or not board["description"]:
        yield "editable, without tag or without description"
    if not any(link["type"] == "dashboards" for link in board["links"]):
        yield "no link to the other boards"


def _links_lead_to_pages(board: Board) -> Iterator[str]:
    """${pages} is the address of the service; a variable in a path is one part of it."""
    addresses = set(re.findall(r'"url": "([^"]+)"', json.dumps(board)))
    if "${pages}" not in addresses:
        yield "no link to the pages"
    for address in addresses:
        path = re.sub(r"\$\{[^}]+\}", "x", address.removeprefix("${pages}")) or "/"
        if not address.startswith("${pages}") or not is_page(path):
            yield f"a link to nowhere: {address}"


def is_page(path: str) -> bool:
    routes = (route for router in ROUTERS for route in router.routes)
    return any(route.matches({"type": "http", "method": "GET", "path": path,
                              "headers": []})[0] is Match.FULL for route in routes)  # fmt: skip


def _grid_is_whole(board: Board) -> Iterator[str]:
    numbers = [panel["id"] for panel in board["panels"]]
    if len(set(numbers)) != len(numbers):
        yield "two panels with one id"
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        if place["x"] + place["w"] > 24 or taken & cells:
            yield f"{panel['title']}: overlaps or sticks out"
        taken |= cells


CHECKS: list[Callable[[Board], Iterator[str]]] = [
    _datasource_is_a_variable,
    _panels_are_described,
    _units_are_known,
    _counters_are_rated,
    _metrics_exist,
    _variables_reload,
    _frame_is_ours,
    _links_lead_to_pages,
    _grid_is_whole,
]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_what_the_code_generates(name: str) -> None:
    """If not: PYTHONPATH=dashboards/src python -m driftscope_dashboards.generate"""
    assert (FOLDER / f"{name}.json").read_text() == as_json(BOARDS[name])


def test_no_other_file_lies_there() -> None:
    assert sorted(file.stem for file in FOLDER.iterdir()) == NAMES


def round_trip(text: str) -> Any:
    board = Dashboard.from_json(json.loads(text))
    return json.loads(JSONEncoder(sort_keys=True, indent=2).encode(board))


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_knows_every_key(name: str) -> None:
    """The SDK drops what it does not know."""
    text = (FOLDER / f"{name}.json").read_text()
    assert round_trip(text) == json.loads(text)


#: Made from Grafana's published types by scripts/grafana_schema.py; needs no node.
GRAFANA_TYPES = Path(__file__).parent / "schema"


def misfits(schema: Board, value: Any) -> list[str]:
    """Where they lie."""
    validators = pytest.importorskip("jsonschema.validators")
    found = validators.validator_for(schema)(schema).iter_errors(value)
    return ["/".join(map(str, fault.absolute_path)) for fault in found]


def faults_by_grafanas_types(board: Board) -> list[str]:
    frame, of_panels = (
        json.loads((GRAFANA_TYPES / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("dashboard", "panels")
    )
    found = misfits(frame, board)
    for panel in panels(board):
        of_kind = of_panels[panel["type"]]
        given = {"Options": panel.get("options"),
                 "FieldConfig": panel["fieldConfig"]["defaults"].get("custom")}  # fmt: skip
        for name, value in given.items():
            if value:
                inside = misfits(of_kind[name], value)
                found += [f"{panel['type']} {name}: {place}" for place in inside]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_grafanas_own_types_take_every_board(name: str) -> None:
    assert faults_by_grafanas_types(load(name)) == []


def test_grafanas_own_types_refuse_what_is_planted() -> None:
    board = load("run-health")
    assert faults_by_grafanas_types(board | {"refersh": "5s"}) == [""]
    board["templating"]["list"][0]["refresh"] = "often"
    assert set(faults_by_grafanas_types(board)) == {"templating/list/0/refresh"}
    [first, *_] = [number for number, one in enumerate(board["panels"]) if one["type"] != "row"]
    board = load("run-health")
    del board["panels"][first]["gridPos"]["w"]
    assert faults_by_grafanas_types(board) == [f"panels/{first}"]  # neither a panel nor a row
    board = load("run-health")
    [line, *_] = [panel for panel in panels(board) if panel["type"] == "timeseries"]
    line["options"]["legend"]["placement"] = "above"
    assert faults_by_grafanas_types(board) == ["timeseries Options: legend/placement"]


def test_the_schema_drops_a_planted_key() -> None:
    board = load("run-health") | {"refersh": "5s"}
    assert round_trip(json.dumps(board)) != board


@pytest.mark.parametrize("name", NAMES)
def test_no_rule_is_broken(name: str) -> None:
    assert faults(load(name)) == []


def planted(change: Callable[[Board], None]) -> list[str]:
    board = copy.deepcopy(load("service"))
    change(board)
    return faults(board)


def _first(board: Board) -> Board:
    return next(panels(board))


PLANTED: dict[str, Callable[[Board], Any]] = {
    "a fixed datasource": lambda b: _first(b)["datasource"].update(uid="abc"),
    "no datasource variable": lambda b: b["templating"]["list"].pop(0),
    "no title or description": lambda b: _first(b).update(title=""),
    "does not name its metric": lambda b: _first(b).update(description="What it is."),
    "no query": lambda b: _first(b).update(targets=[]),
    "unit": lambda b: _first(b)["fieldConfig"]["defaults"].update(unit="seconds"),
    "a counter without rate": lambda b: _first(b)["targets"][0].update(
        expr="driftscope_ingest_requests_total"
    ),
    "rate without": lambda b: _first(b)["targets"][0].update(
        expr="rate(driftscope_ingest_requests_total[5m])"
    ),
    "unknown metric": lambda b: _first(b)["targets"][0].update(expr="driftscope_jbos"),
    "no metric in": lambda b: _first(b)["targets"][0].update(expr="vector(1)"),
    "is no variable": lambda b: _first(b)["targets"][0].update(expr='up{run="$rnu"}'),
    "does not reload": lambda b: b["templating"]["list"][-1].update(refresh=1),
    "editable": lambda b: b.update(editable=True),
    "no link to the other boards": lambda b: b.update(links=[]),
    "no link to the pages": lambda b: b.update(links=[]),
    "a link to nowhere": lambda b: b["links"].append({"type": "link", "url": "${pages}/rnus"}),
    "one id": lambda b: b["panels"][1].update(id=b["panels"][2]["id"]),
    "overlaps": lambda b: b["panels"][1]["gridPos"].update(w=24),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_every_rule_catches_its_fault(fault: str) -> None:
    assert any(fault in text for text in planted(PLANTED[fault]))


def test_boards_have_their_own_uids() -> None:
    uids = [load(name)["uid"] for name in NAMES]
    assert len(set(uids)) == len(uids) and all(uid.startswith("driftscope-") for uid in uids)
