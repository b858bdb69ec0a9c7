"""Options made from a model: type and default of the field, and faults in the command's words."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from driftscope_probes.errors import RequestError
from driftscope_service.terminal.commands import CHOICES, Json, checked, fields, request_options


class Toy(BaseModel):
    model: str
    kind: Literal["a", "b", "c"] = "a"
    sizes: list[int] = Field([1, 2], min_length=2)
    long: list[int] = Field(list(range(20)))
    threads: int | None = None
    compile: bool = False


HELPS = {"model": "Name.", "kind": CHOICES, **dict.fromkeys(("sizes", "long", "threads"), "")}
app = typer.Typer()
told: list[tuple[dict[str, Any], bool]] = []


@app.command()
@request_options(
    fields(Toy, HELPS),
    fields(Toy, {"compile": ""}, panel="Engine", flags={"compile": "--on/--off"}),
)
def toy(values: dict[str, Any], json_: Json = False) -> None:
    """Do it."""
    told.append((values, json_))


def asked(*arguments: str) -> Toy:
    result = CliRunner().invoke(app, ["--model", "m", *arguments])
    assert result.exit_code == 0, result.output
    return checked(Toy, told[-1][0], command="toy")


def test_options_not_given_are_the_models_defaults() -> None:
    assert asked() == Toy(model="m")


def test_every_option_reaches_its_field() -> None:
    words = "--kind b --sizes 3,4,5 --threads 2 --on --json".split()
    assert asked(*words) == Toy(model="m", kind="b", sizes=[3, 4, 5], threads=2, compile=True)
    assert told[-1][1] is True


def test_the_help_has_choices_and_short_defaults() -> None:
    text = CliRunner().invoke(app, ["--help"], terminal_width=100).output
    assert "a, b or c. [default: a]" in text
    assert "[default: 1,2]" in text and "0,1,2,3" not in text


def test_a_fault_names_the_option_and_what_was_given() -> None:
    with pytest.raises(RequestError) as caught:
        asked("--kind", "d", "--sizes", "3")
    kind, sizes = caught.value.message.splitlines()
    assert kind == "kind: Input should be 'a', 'b' or 'c' (given: 'd')"
    assert sizes.startswith("sizes: ") and sizes.endswith("(given: ['3'])")
    assert "driftscope toy --help" in caught.value.remedy
