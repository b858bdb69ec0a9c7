"""Grafana's own type of a dashboard as a JSON schema, for the test of the boards.

    python scripts/grafana_schema.py [FOLDER]

In: the npm package @grafana/schema, whose raw types Grafana generates from its CUE kinds; node and
npm are needed here, and not by the test. Out: in tests/dashboards/grafana/schema, dashboard.json,
and panels.json with the options and the custom field settings of every kind of panel that is used.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

#: Written into the schema.
SCHEMA = "@grafana/schema@13.2.3"
#: A later TypeScript has no interface that the generator could read types by.
TOOLS = ("ts-json-schema-generator@2.4.0", "typescript@5.9.3")
TYPES = "node_modules/@grafana/schema/dist/types/raw"
DASHBOARD = f"{TYPES}/dashboard/x/types.gen.d.ts"
#: Of the panels on our boards; the folder of the types has no hyphen. Some kinds have one type.
PANELS = {
    "bargauge": ("Options",),
    "heatmap": ("Options", "FieldConfig"),
    "stat": ("Options",),
    "state-timeline": ("Options", "FieldConfig"),
    "table": ("Options", "FieldConfig"),
    "timeseries": ("Options", "FieldConfig"),
}
TARGET = Path(__file__).parents[1] / "tests" / "dashboards" / "grafana" / "schema"


def install(folder: Path) -> None:
    (folder / "package.json").write_text("{}", encoding="utf-8")
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps"]
    subprocess.run(["npm", "install", *options, SCHEMA, *TOOLS], cwd=folder, check=True)


def generated(folder: Path, path: str, name: str) -> dict[str, Any]:
    generator = "node_modules/ts-json-schema-generator/bin/ts-json-schema-generator.js"
    options = ["--type", name, "--no-type-check", "-o", "made.json"]
    subprocess.run(["node", generator, "--path", path, *options], cwd=folder, check=True)
    made: dict[str, Any] = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    return made


def panels(folder: Path) -> dict[str, Any]:
    """By kind, then by name of the type."""
    found = {}
    for kind, names in PANELS.items():
        path = f"{TYPES}/composable/{kind.replace('-', '')}/panelcfg/x/types.gen.d.ts"
        of_kind = {name: generated(folder, path, name) for name in names}
        found[kind] = without_descriptions(of_kind)
    return found


def without_descriptions(schema: Any) -> Any:
    """Texts are two thirds of it, and check nothing. A property may have that name."""
    if isinstance(schema, list):
        return [without_descriptions(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: without_descriptions(one)
        for name, one in schema.items()
        if not (name == "description" and isinstance(one, str))
    }


def with_queries_of_annotations(schema: dict[str, Any]) -> dict[str, Any]:
    """The raw type knows the target of Grafana's own annotations alone. The type that the package
    exports for users (veneer/dashboard.types) has the query of whichever data source there, and
    that source's fields beside it."""
    annotation = schema["definitions"]["AnnotationQuery"]
    annotation["additionalProperties"] = True
    annotation["properties"]["target"] = {"type": "object"}
    return schema


def with_fields_of_intervals(schema: dict[str, Any]) -> dict[str, Any]:
    """The type leaves out what an interval variable has; the foundation SDK writes it for every
    kind, and Grafana reads it for that one."""
    known = schema["definitions"]["VariableModel"]["properties"]
    known |= {
        "auto": {"type": "boolean"},
        "auto_count": {"type": "number"},
        "auto_min": {"type": "string"},
    }
    return schema


def with_tables_as_they_are_read(panels: dict[str, Any]) -> dict[str, Any]:
    """`cellOptions` has a default, which the type does not say; `footer` is of Grafana 12, and the
    13 that this type is of leaves it unread."""
    table = panels["table"]
    table["FieldConfig"]["definitions"]["FieldConfig"]["required"].remove("cellOptions")
    table["Options"]["definitions"]["Options"]["properties"]["footer"] = {"type": "object"}
    return panels


def main(target: Path = TARGET) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder)
        schema = without_descriptions(generated(folder, DASHBOARD, "Dashboard"))
        schema = with_fields_of_intervals(with_queries_of_annotations(schema))
        of_panels = with_tables_as_they_are_read(panels(folder))
    origin = f"Made by scripts/grafana_schema.py from {SCHEMA} (Apache-2.0, Grafana Labs)."
    for file, made in (("dashboard.json", schema), ("panels.json", of_panels)):
        text = json.dumps({"$comment": origin, **made}, indent=1, sort_keys=True)
        (target / file).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
