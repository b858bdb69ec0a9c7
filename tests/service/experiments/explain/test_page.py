"""The page of an explanation: the answer first, every op and cell, markup as text, its data."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from markupsafe import escape

from driftscope_probes.explain.report import VERDICTS, Alignment, Check, ExplainReport, Verdict
from driftscope_probes.explain.report import WeightDifference as Weight
from driftscope_service.experiments.explain.heat import HeatCell, heat_of
from driftscope_service.experiments.explain.html import render
from driftscope_service.experiments.explain.kind import KIND
from driftscope_service.experiments.explain.page import compared_data, growth_data, ops_data

from .example import LAYERS, SITES, attention, compared, explanation, op, rotary, site, way

EVIL = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def page() -> str:
    return render(explanation())


def visible(page: str) -> str:
    """Text of the page, without what is no text."""
    bare = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def test_the_answer_comes_first(page: str) -> None:
    text, report = visible(page), explanation()
    assert report.remedy is not None and report.verified is not None
    order = (
        *("rounding", report.sentence, "Against float64, the engine is closer in", report.remedy),
        *("Ops that differ on equal inputs", report.verified.sentence, "Every op of every layer"),
        *("How each side computes them", "Growth by layer", "What really ran"),
    )
    places = [text.index(one) for one in order]
    assert places == sorted(places)
    assert render(explanation()) == page


def test_every_op_is_shown_with_both_ways(page: str) -> None:
    text = visible(page)
    for number, one in enumerate(explanation().ops, start=1):
        assert f'id="op-{number}"' in page and f'href="#op-{number}"' in page
        assert one.why in text
        for side in (one.engine, one.trainer):
            assert side.code is None or side.code in text
    assert "no named way equals it; nearest is sdpa, 81.0% of the elements" in text
    assert "layers 0–3, 6–29" in text and "trainer: ((0+1)+(2+3))" in text
    assert "0.0412 → 0.0398" in text and "token 17 (sequence 0, position 17), feature 203" in text


def test_the_heat_map_has_a_row_per_op_and_a_cell_per_layer(page: str) -> None:
    heat = heat_of(list(compared()), explanation().ops)
    assert heat.layers == tuple(range(LAYERS))
    assert [row.site for row in heat.rows] == [name for name, _ in SITES]
    assert all(len(row.cells) == LAYERS for row in heat.rows)
    assert [row.site for row in heat.outside] == ["embedding", "final_norm", "lm_head", "logprob"]
    assert {row.site: row.op for row in heat.rows}["rotary"] == 1
    assert {row.site: row.op for row in heat.rows}["q_proj"] is None
    assert len(re.findall(r'<td class="heat-\d', page)) == LAYERS * len(SITES) + 4
    assert not heat.beyond and "farther apart than rounding explains." not in visible(page)


@pytest.mark.parametrize(
    ("differing", "shade", "text"),
    [
        (0.0, 0, ""),
        (1e-7, 2, "<.1"),
        (2e-3, 5, ".2"),
        (0.014, 6, "1"),
        (0.26, 9, "26"),
        (0.9999, 10, "99"),
        (1.0, 10, "100"),
    ],
)
def test_a_cell_says_how_much_differs(differing: float, shade: int, text: str) -> None:
    cell = HeatCell(site(3, "rotary", "rotary", differing, 0.0))
    assert (cell.shade, cell.text) == (shade, text)
    assert cell.told.startswith("layer 3 rotary: ") and not cell.beyond


def test_a_layer_without_the_op_is_a_hole_and_too_far_is_marked() -> None:
    far = site(2, "router", "router", 0.5, 0.0).model_copy(update={"beyond_tolerance": 0.25})
    some = [site(1, "rotary", "rotary", 0.0, 1.0), far]
    heat = heat_of(some, [])
    assert [[cell is None for cell in row.cells] for row in heat.rows] == [
        [False, True],
        [True, False],
    ]
    text = visible(render(explanation(compared=some)))
    assert "50 beyond rounding" in text and "Outlined: farther apart than rounding" in text
    assert heat.rows[1].cells[1] is not None
    assert "25.0% by more than rounding explains" in heat.rows[1].cells[1].told


def test_two_dumps_show_an_op_only_where_its_inputs_are_equal() -> None:
    """No weights, no error; no token with equal inputs, no fraction."""
    unseen: dict[str, Any] = {"equal_fraction": None, "max_ulp": None, "beyond_tolerance": None}
    blind = site(2, "k_proj", "linear", 0.0, 0.1).model_copy(update=unseen)
    bare = {"errors": None, "closer_to_float64": None, "beyond_tolerance": None}
    lone = op("linear", "linear", [2], **bare)
    assert lone.first is not None
    far = lone.first.model_copy(update={"inputs": "unknown"})
    report = explanation(compared=[blind], ops=[lone.model_copy(update={"first": far})])
    text = visible(render(report))
    assert "? had no inputs that are known to be equal" in text and "was not captured" in text
    heat = heat_of(report.compared, report.ops)
    assert heat.unknown and not heat.beyond and heat.cells[0].shade is None
    assert heat.cells[0].told == "layer 2 k_proj: no token with inputs that are known to be equal"
    summary = KIND.summarise(report)
    assert summary["equal_by_op"] == {} and summary["side"] is None
    assert ops_data(report).rows[0][10:14] == [None] * 4


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_has_a_page_and_an_answer(verdict: Verdict) -> None:
    nothing: dict[str, Any] = {"gap": None, "first": None, "ops": [], "compared": []}
    nothing |= {"growth": [], "verified": None, "full_vocabulary": None, "remedy": None}
    failed = Check(what="token ids", equal=False, says="the tokenizers differ")
    weights = [Weight(tensor="lm_head", equal_fraction=0.5, max_abs=0.1, says="half is old")]
    alignment = Alignment(
        checks=[failed], weights=weights, weights_compared=9, weights_unknown=["model.bias"]
    )
    report = explanation(verdict=verdict, alignment=alignment, ran={}, notes=[], **nothing)
    text = visible(render(report))
    assert VERDICTS[verdict] in text and "the tokenizers differ" in text
    assert "half is old" in text and "model.bias" in text
    assert "Ops that differ" not in text and "Every op of every layer" not in text
    answer = KIND.answer(KIND.summarise(report))
    assert answer is not None and answer.word == VERDICTS[verdict] and answer.side is None


def test_markup_in_the_report_is_text() -> None:
    evil = way(EVIL, EVIL, EVIL)
    ops = [op(EVIL, EVIL, [0], sites=[EVIL], reason=EVIL, why=EVIL, engine=evil, trainer=evil)]
    report = explanation(
        model={"name": EVIL},
        sentence=EVIL,
        remedy=EVIL,
        ops=ops,
        compared=[site(0, EVIL, EVIL, 0.5, 0.0)],
        uncovered=[EVIL],
        ran={EVIL: {EVIL: EVIL}},
        notes=[EVIL],
        environment={"packages": {}, EVIL: [EVIL]},
    )
    page = render(report)
    assert "<img src=x" not in page and EVIL in visible(page)
    assert page.count(str(escape(EVIL))) > 10
    assert len(re.findall(r"<script[ >]", page)) == len(re.findall(r"</script", page)) == 3
    assert KIND.summarise(report)["sentence"] == EVIL


def test_a_stored_report_is_read_again() -> None:
    report = explanation()
    assert ExplainReport.read(report.to_dict()) == report
    assert report.exit_code == 1


def test_tables_are_data() -> None:
    report = explanation()
    ops = ops_data(report)
    row = dict(zip(ops.columns, ops.rows[1], strict=True))
    assert (row["op"], row["layers"], row["reason"]) == ("rotary", "0–29", "rounding_point")
    assert row["trainer_way"] == rotary().trainer.variant and row["engine_error"] == 0.31
    assert row["abs_diff_mean_after_swap"] == 0.0398
    without = ops_data(explanation(ops=[attention().model_copy(update={"swap": None})]))
    assert without.rows[0][-2:] == [None, None]
    assert [row[0] for row in growth_data(report).rows] == [*range(LAYERS), None]
    cells = compared_data(report)
    assert len(cells.rows) == len(report.compared) and cells.columns[:3] == ("layer", "site", "op")


def test_the_summary_bounds_what_is_exported() -> None:
    summary = KIND.summarise(explanation())
    assert summary["equal_by_op"]["linear"] == pytest.approx(1 - 3e-4)
    assert summary["equal_by_op"]["embedding"] == 1.0
    assert (summary["abs_diff_mean"], summary["abs_diff_mean_after"]) == (0.0412345, 0.0)
    assert [one["reason"] for one in summary["ops"]] == ["rounding_point"] * 2 + ["unknown"]
