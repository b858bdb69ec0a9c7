"""The form of a request: every field has its control, and what is typed is what is asked for."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from driftscope_service.experiments.form import asked_of, form_of, slots, typed_of
from driftscope_service.experiments.paired.job import PairedProbeRequest


class Inner(BaseModel):
    size: int = Field(4, ge=1, lt=9, description="how many")
    share: float = Field(0.5, gt=0.0, le=1.0)
    split: bool | None = None
    eager: bool = True


class Asked(BaseModel):
    model: str
    kind: Literal["a", "b"] = "a"
    kinds: list[Literal["x", "y", "z"]] | None = None
    mixed: list[int | str] | None = None
    names: list[str] = Field(["one"], min_length=1)
    prompts: list[str | list[dict[str, str]]] | int = 8
    never: None = None
    inner: Inner = Inner()


def test_every_field_has_the_control_of_its_type() -> None:
    assert {slot.name: slot.control for slot in slots(Asked)} == {
        **{"model": "text", "kind": "choice", "kinds": "choices", "mixed": "list"},
        **{"names": "list", "prompts": "lines", "inner.size": "number", "inner.share": "number"},
        **{"inner.split": "choice", "inner.eager": "switch"},
    }
    form = form_of(Asked, typed_of(Asked, {}), {})
    fields = {field.name: field for field in form.fields}
    assert (fields["inner.size"].least, fields["inner.size"].most) == ("1", "8")
    assert fields["inner.size"].standard == "4" and fields["inner.size"].help == "how many"
    assert fields["model"].slot.required and fields["model"].standard == ""
    assert [section.title for section in form.sections] == ["", "inner"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "b", "kinds": ["z", "x"], "mixed": [1, "two"], "names": ["a", "b"]},
        {"prompts": ["plain", "two\nlines", "[1]", '"quoted"', "{}", "7", "  edge", "a\rb"]},
        {"prompts": [[{"role": "user", "content": "hi"}], "x"]},
        {"prompts": 3, "inner": {"size": 7, "share": 0.25, "split": False, "eager": False}},
        {"inner": {"split": True}},
    ],
)
def test_what_a_form_shows_is_read_as_the_same_request(values: dict[str, Any]) -> None:
    request = Asked.model_validate({"model": "m", **values})
    typed = typed_of(Asked, request.model_dump(mode="json"))
    # As a browser sends it: line ends are CRLF, an unchecked box is absent.
    sent = {
        name: [value.replace("\n", "\r\n") for value in given]
        for name, given in typed.items()
        if given != ["false"] or name != "inner.eager"
    }
    assert Asked.model_validate(asked_of(Asked, sent)) == request


def test_a_fault_stands_at_its_field_and_the_input_stays() -> None:
    typed = {**typed_of(Asked, {}), "inner.size": ["many"], "names": [""], "kind": ["c"]}
    with pytest.raises(ValidationError) as caught:
        Asked.model_validate(asked_of(Asked, typed))
    faults = [(fault["loc"], fault["msg"]) for fault in caught.value.errors()]
    form = form_of(Asked, typed, {}, faults=[*faults, ((), "of no field")])
    wrong = {field.name: field for field in form.fields if field.error}
    assert set(wrong) == {"inner.size", "names", "kind"}
    assert wrong["inner.size"].value == "many"
    assert form.errors == ("of no field",) and not form.valid
    assert form.sections[1].open, "a fault in a closed section would not be seen"


def test_what_differs_from_the_job_is_marked() -> None:
    was = typed_of(Asked, {"model": "m", "kinds": ["x"]})
    form = form_of(Asked, {**was, "kinds": ["x", "y"], "inner.size": ["5"]}, {}, was=was)
    assert {field.name for field in form.changed} == {"kinds", "inner.size"}
    assert not form_of(Asked, was, {}, was=was).changed


def test_a_name_that_the_service_does_not_have_is_still_shown() -> None:
    form = form_of(Asked, {"model": ["/my/folder"]}, {"model": ["known"]})
    assert form.fields[0].options == ("known", "/my/folder")
    assert form.fields[0].value == "/my/folder"


def test_prompts_of_a_paired_probe_come_back_whole() -> None:
    prompts: list[Any] = ["one", [{"role": "user", "content": "line\nline"}], '["a"]']
    request = PairedProbeRequest.model_validate({"model": "m", "prompts": prompts})
    typed = typed_of(PairedProbeRequest, request.model_dump(mode="json"))
    assert len(typed["prompts"][0].split("\n")) == 3
    again = PairedProbeRequest.model_validate(asked_of(PairedProbeRequest, typed))
    assert json.loads(again.model_dump_json()) == json.loads(request.model_dump_json())
