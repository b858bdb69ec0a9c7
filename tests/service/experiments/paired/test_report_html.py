"""The HTML report as text: escaping, self-containment, and every number in it."""

from __future__ import annotations

import copy
import html
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.paired import html as paired_html
from driftscope_service.experiments.paired.html import WORST_LAYERS
from driftscope_service.numbers.metric_words import number

EVIL = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
#: Attributes by which a browser would load something.
LOADING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "cite", "ping"}


class Elements(HTMLParser):
    """Every start tag with its attributes; visible text without scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    @property
    def visible(self) -> str:
        return " ".join("".join(self.text).split())


def render(report: dict[str, Any]) -> str:
    return paired_html.render(PairedReport.read(report))


@pytest.fixture(scope="module")
def page(report: dict[str, Any]) -> str:
    return render(report)


def embedded(page: str, name: str) -> Any:
    found = re.search(f'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def test_the_same_report_gives_the_same_bytes(report: dict[str, Any], page: str) -> None:
    assert render(copy.deepcopy(report)) == page


def test_the_report_itself_is_in_the_page(report: dict[str, Any], page: str) -> None:
    assert embedded(page, "report-data") == report


def test_the_sentence_and_the_published_figures_come_first(
    report: dict[str, Any], page: str
) -> None:
    text = Elements(page).visible
    reading = report["reading"]
    assert reading["figures"], "the fixture should have figures"
    places = [text.index(reading["sentence"])]
    places += [text.index(figure["published"], places[0] + 1) for figure in reading["figures"]]
    assert max(places) < text.index("The grid") < text.index("Cell by cell")


def test_every_cell_shows_its_numbers(report: dict[str, Any], page: str) -> None:
    text = Elements(page).visible
    for cell in report["grid"]:
        comparison = cell["comparison"]
        for name in ("abs_diff_mean", "kl_k3", "abs_diff_max", "seq_logratio_std"):
            assert number(comparison[name]) in text
    for name in ("abs_diff_mean", "ess_ratio_sequence", "first_differing_token_median"):
        assert text.count(name) >= len(report["grid"])


@pytest.mark.parametrize(
    "section",
    "reading grid cells plots headroom gradients notes timing environment reproduce".split(),
)
def test_every_section_is_there_and_labelled(page: str, section: str) -> None:
    tags = Elements(page).tags
    ids = {attributes.get("id") for _, attributes in tags}
    assert {section, f"{section}-title"} <= ids


def test_ids_are_unique(page: str) -> None:
    ids = [attributes["id"] for _, attributes in Elements(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_absent_parts_are_left_out(report: dict[str, Any]) -> None:
    bare = copy.deepcopy(report) | {"headroom": None, "gradients": None, "notes": []}
    ids = {attributes.get("id") for _, attributes in Elements(render(bare)).tags}
    assert not {"headroom", "gradients", "notes"} & ids


def test_markup_in_the_report_is_text(make_report: Any) -> None:
    report = make_report(("bf16",), ("bf16",), model=EVIL)
    report["notes"] = [EVIL]
    report["reading"]["sentence"] = EVIL
    report["headroom"]["sentence"] = EVIL
    report["headroom"]["layers"][0]["layer"] = EVIL
    report["environment"]["variables"] = {EVIL: EVIL}
    report["grid"][0]["rollout"]["settings"] = {EVIL: {EVIL: [EVIL]}}
    report["grid"][0]["comparison"]["undefined"] = {"kl_k3": EVIL}
    report["grid"][0]["comparison"]["kl_k3"] = None
    page = render(report)
    harmless = render(make_report(("bf16",), ("bf16",)))
    scripts = [tag for tag, _ in Elements(page).tags if tag == "script"]
    assert len(scripts) == len([tag for tag, _ in Elements(harmless).tags if tag == "script"])
    assert "img" not in {tag for tag, _ in Elements(page).tags}
    assert EVIL in Elements(page).visible
    assert embedded(page, "report-data") == report


def test_nothing_is_loaded_and_nothing_could_be(page: str) -> None:
    elements = Elements(page)
    for tag, attributes in elements.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "img", "video"}
        assert not LOADING & attributes.keys(), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    assert not re.search(r"url\(|@import|https?:", style[1])
    policy = next(
        attributes["content"]
        for tag, attributes in elements.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy and "connect-src" not in policy


def test_scripts_cannot_end_their_element(page: str) -> None:
    starts = len(re.findall(r"<script[ >]", page))
    assert starts == len(re.findall(r"</script", page, re.I)) == 4


def test_a_grid_of_another_shape(make_report: Any) -> None:
    modes = ("bf16", "autocast-bf16+fp32-head", "fp16+fp32-head", "fp32")
    page = render(make_report(("fp16", "bf16"), modes, lengths=(5, 900, 40)))
    cells = [
        attributes
        for tag, attributes in Elements(page).tags
        if tag == "td" and str(attributes.get("class", "")).startswith("cell")
    ]
    assert len(cells) == 8
    assert sum("matched" in str(attributes["class"]) for attributes in cells) == 1


def test_a_hole_in_the_grid_is_named(report: dict[str, Any]) -> None:
    holed = copy.deepcopy(report)
    del holed["grid"][4]
    assert "not run" in Elements(render(holed)).visible


def test_undefined_numbers_say_why(make_report: Any) -> None:
    text = Elements(render(make_report(("bf16",), ("bf16",), lengths=(1,)))).visible
    assert "undefined: an unbiased standard deviation needs at least two values" in text
    assert "undefined: resampling sequences needs at least two of them" in text


def test_intervals_may_be_switched_off(make_report: Any) -> None:
    text = Elements(render(make_report(("bf16", "fp16"), ("bf16", "fp16"), resamples=0))).visible
    assert "Intervals were switched off." in text
    assert "undefined: intervals were switched off" in text


def test_a_cell_without_any_number_is_undefined_and_unshaded(report: dict[str, Any]) -> None:
    empty = copy.deepcopy(report)
    comparison = empty["grid"][0]["comparison"]
    for name, value in comparison.items():
        if isinstance(value, float) and name != "interval_level":
            comparison[name] = None
            comparison["undefined"][name] = "no unmasked token is finite"
    page = render(empty)
    assert 'class="cell matched undefined"' in page
    assert "undefined: no unmasked token is finite" in Elements(page).visible


def test_figures_without_a_value_say_why(report: dict[str, Any]) -> None:
    changed = copy.deepcopy(report)
    changed["reading"]["figures"][0] |= {
        "value": None,
        "interval": None,
        "undefined": "the denominator is 0",
    }
    assert "undefined: the denominator is 0" in Elements(render(changed)).visible


def test_layers_that_overflow_come_first(report: dict[str, Any]) -> None:
    changed = copy.deepcopy(report)
    changed["headroom"]["layers"][-1] |= {"layer": "the.infinite", "activation_max": None}
    changed["headroom"]["layers"][-2] |= {"layer": "the.largest", "activation_max": 9e4}
    page = render(changed)
    names = re.findall(r'<th scope="row"><code>([^<]*)</code></th>\s*<td>', page)
    layers = [name for name in names if name.startswith(("the.", "model.layers"))]
    assert layers[:2] == ["the.infinite", "the.largest"]
    assert len(layers) == WORST_LAYERS + len(changed["headroom"]["layers"])


def test_every_recorded_setting_is_shown(report: dict[str, Any], page: str) -> None:
    text = Elements(page).visible
    for side in ("rollout", "trainer"):
        for name in report["grid"][0][side]["settings"]:
            assert name in text
    for name, version in report["environment"]["packages"].items():
        assert f"packages.{name}" in text and version in text


def test_the_command_is_there_to_copy(page: str) -> None:
    command = re.search(r"<pre[^>]*><code>(.*?)</code></pre>", page, re.S)
    assert command is not None
    assert html.unescape(command[1]).startswith("driftscope probe paired --model smollm2-135m ")


def test_a_report_that_is_no_json_is_refused(report: dict[str, Any]) -> None:
    broken = copy.deepcopy(report)
    broken["timing"]["total_s"] = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        render(broken)
