"""Routes of a pushed step: in its answer, on its page without a script, and in the heat map."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest

from driftscope_service.runs.pages.routing_view import routing_plot, routing_view

LENGTHS = (80, 40)
SIZE, LAYERS = sum(LENGTHS), 6


@pytest.fixture
def flipping(pushing: Any) -> Any:
    """Step 1 of run `r`: layer 4 flips in the first 30 tokens of each sequence."""
    random = np.random.default_rng(0)
    rollout = random.random((SIZE, LAYERS, 32)).argsort(axis=-1)[..., :2].astype(np.int16)
    trainer = rollout.copy()
    place = np.concatenate([np.arange(length) for length in LENGTHS])
    trainer[place < 30, 4, 1] = 32
    body = pushing.body(
        lengths=LENGTHS, mask=np.ones(SIZE, np.uint8), routed_experts=rollout,
        trainer_routed_experts=trainer,
    )  # fmt: skip
    answer = pushing.push(body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_the_answer_and_the_step_have_the_numbers(flipping: Any, running: Any) -> None:
    agreement = flipping["routing"]["agreement"]
    assert agreement["tokens"] == SIZE
    assert agreement["choices_flipped"] == 60 / (SIZE * LAYERS)
    assert agreement["tokens_flipped"] == 60 / SIZE
    assert running.client.get("/v1/runs/r/steps/1").json()["routing"] == flipping["routing"]


def test_a_step_without_routes_says_null_and_has_no_plot(pushing: Any, running: Any) -> None:
    assert pushing.push(pushing.body()).json()["routing"] is None
    assert "Its experts" not in running.client.get("/runs/r/steps/1").text
    assert running.client.get("/runs/r/steps/1/plots/routing.json").status_code == 404


def test_the_page_reads_without_a_script(flipping: Any, running: Any) -> None:
    text = running.client.get("/runs/r/steps/1").text
    assert "Its experts" in text
    assert "8.33% of the choices differ, and 50.0% of 120 tokens have at least one" in text
    assert "flip in any layer" in text and "nothing beyond what chance shows" in text
    assert 'source="/runs/r/steps/1/plots/routing.json"' in text
    # The table of the heat map: layer 4, then all, same experts, and the bins.
    of_layers = text.split('id="routing"')[1]
    row = of_layers.split('<th scope="row">4</th>')[1].split("</tr>")[0]
    assert row.count("<td>100%</td>") == 7 and row.count("<td>50.0%</td>") == 2


def test_the_heat_map_as_json_and_csv(flipping: Any, running: Any) -> None:
    found = running.client.get("/runs/r/steps/1/plots/routing.json").json()
    assert found["columns"] == ["layer", "from", "below", "tokens", "flipped"]
    assert found["width"] == 4 and len(found["rows"]) == LAYERS * 20
    cells = {(layer, first): flipped for layer, first, _, _, flipped in found["rows"]}
    assert [cells[4, first] for first in (0, 24, 28, 32)] == [1.0, 1.0, 0.5, 0.0]
    assert all(flipped == 0 for (layer, _), flipped in cells.items() if layer != 4)
    answer = running.client.get("/runs/r/steps/1/plots/routing.csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="r-1-routing.csv"'
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == found["columns"] and len(rows) == 1 + LAYERS * 20


def test_a_sign_links_to_its_token(pushing: Any, running: Any) -> None:
    rows = np.random.default_rng(1).random((SIZE, LAYERS, 32)).argsort(axis=-1)[..., :2]
    rows = rows.astype(np.int16)
    rows[100:] = 0
    body = pushing.body(lengths=LENGTHS, mask=np.ones(SIZE, np.uint8), routed_experts=rows)
    routing = pushing.push(body).json()["routing"]
    assert routing["agreement"] is None and routing["integrity"]["corrupt"] is True
    text = running.client.get("/runs/r/steps/1").text
    assert "no trainer_routed_experts to compare" in text
    assert "Signs of corrupt routes" in text and "rows of padding" in text
    assert "/runs/r/steps/1?sequence=1&amp;at=20#sequence" in text
    assert running.client.get("/runs/r/steps/1/plots/routing.json").status_code == 404


def test_a_step_of_an_older_version_has_no_view() -> None:
    assert routing_view(None) is None and routing_plot(None) is None
