"""/probes/new: a probe of each kind from a form, with no script too; a real one in the browser."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from starlette.testclient import TestClient

from driftscope_service.app import create_app
from driftscope_service.auth.key import Scope, new_key
from driftscope_service.auth.store import KeyRepository
from driftscope_service.experiments.registry import load_kinds
from driftscope_service.service import open_service

HTML = {"accept": "text/html"}
ROOT = Path(__file__).parents[3]
KINDS = load_kinds()
MODEL = "tiny-random-llama"
#: A real probe of a tiny model: two imports of torch on a busy machine.
PROBE_PATIENCE_MS = 300_000


class Controls(HTMLParser):
    """What a browser without scripts would send for the form of the request."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sent: dict[str, list[str]] = {}
        self._form = self._select = self._text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("name") or ""
        if tag == "form":
            self._form = given.get("action") or ""
        if not self._form.startswith("/probes/new/"):
            return
        if tag == "select":
            self._select = name
        elif tag == "option" and "selected" in given:
            self.sent[self._select] = [given["value"] or ""]
        elif tag == "textarea":
            self._text, self.sent[name] = name, [""]
        elif tag == "input" and (given["type"] != "checkbox" or "checked" in given):
            self.sent.setdefault(name, []).append(given.get("value") or "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = ""
        elif tag == "textarea":
            self._text = ""

    def handle_data(self, data: str) -> None:
        if self._text:
            self.sent[self._text][0] += data


def form(running: Any, kind: str, query: str = "") -> dict[str, list[str]]:
    page = running.client.get(f"/probes/new/{kind}{query}", headers=HTML)
    assert page.status_code == 200, page.text
    return Controls(page.text).sent


def send(running: Any, kind: str, sent: dict[str, list[str]], act: str = "") -> Any:
    return running.client.post(f"/probes/new/{kind}{act}", data=sent, follow_redirects=False)


def asked(running: Any, job_id: str) -> Any:
    from driftscope_service.jobs.store import JobRepository

    with running.service.database.read() as connection:
        return JobRepository(connection).request_of(job_id)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_form_that_nobody_changed_asks_for_what_the_api_asks_for(running: Any, kind: str) -> None:
    started = send(running, kind, form(running, kind))
    assert started.status_code == 303, started.text
    by_form = started.headers["location"].rsplit("/", 1)[1]
    body = {"model": "smollm2-135m"} if KINDS[kind].of_a_model else {}
    answer = running.client.post(f"/v1/probes/{kind}", json=body)
    assert answer.status_code == 202, answer.text
    assert asked(running, by_form) == asked(running, answer.json()["id"])


def test_the_list_of_kinds_leads_to_every_form(running: Any) -> None:
    page = running.client.get("/probes/new", headers=HTML).text
    assert all(f'href="/probes/new/{kind}"' in page for kind in KINDS)
    assert running.client.get("/probes/new/none", headers=HTML).status_code == 404


def test_a_fault_stands_at_its_field_and_what_was_typed_stays(running: Any) -> None:
    sent = {**form(running, "paired"), "sampling.max_tokens": ["0"], "trainer_dtypes": ["bf17"]}
    refused = send(running, "paired", sent)
    assert refused.status_code == 422
    page = refused.text
    for name in ("sampling.max_tokens", "trainer_dtypes"):
        assert f'id="{name}-error"' in page and f'href="#{name}"' in page
    assert 'value="bf17"' in page and '<details class="section" open>' in page
    assert Controls(page).sent == sent
    assert running.client.get("/v1/jobs").json()["jobs"] == []


def test_the_operator_s_quota_is_shown_and_held(run_service: Any) -> None:
    with run_service(max_response_tokens=100) as running:
        page = running.client.get("/probes/new/floor", headers=HTML).text
        assert "DRIFTSCOPE_MAX_RESPONSE_TOKENS" in page and ">100<" in page
        refused = send(running, "floor", form(running, "floor"))
        assert refused.status_code == 422
        assert "let the operator raise DRIFTSCOPE_MAX_RESPONSE_TOKENS" in refused.text
        assert 'id="max_tokens-error"' in refused.text


def test_checking_starts_nothing_and_says_the_same_request(running: Any) -> None:
    sent = {**form(running, "kernels"), "targets": ["torch, vllm"], "quick": ["true"]}
    page = send(running, "kernels", sent, "/check").text
    assert "driftscope kernels check --target torch,vllm --quick" in page
    assert "&#34;targets&#34;: [&#34;torch&#34;, &#34;vllm&#34;]" in page
    assert running.client.get("/v1/jobs").json()["jobs"] == []


def test_a_full_queue_is_said_and_the_input_stays(run_service: Any) -> None:
    with run_service(max_queued_jobs=1) as running:
        running.wait(running.start("sleep"), "running")
        running.start("sleep")
        sent = {**form(running, "floor"), "prompts": ["5"]}
        refused = send(running, "floor", sent)
        assert refused.status_code == 429 and "waiting already" in refused.text
        assert Controls(refused.text).sent["prompts"] == ["5"]


def test_once_more_with_one_thing_changed(running: Any) -> None:
    first = running.start("succeed", resamples=100, sampling={"max_tokens": 8})
    running.wait(first)
    page = running.client.get(f"/jobs/{first}", headers=HTML).text
    assert f'href="/probes/new/paired?from={first}"' in page
    sent = form(running, "paired", f"?from={first}")
    assert (sent["resamples"], sent["sampling.max_tokens"]) == (["100"], ["8"])
    assert sent["prompts"] == ["succeed"] and sent["from"] == [first]
    same = send(running, "paired", sent, "/check").text
    assert "Nothing is changed against the job" in same
    changed = send(running, "paired", {**sent, "resamples": ["50"]}, "/check").text
    assert "<code>resamples</code>: 100 → 50" in changed
    assert changed.count('<div class="field changed">') == 1
    second = send(running, "paired", {**sent, "resamples": ["50"]}).headers["location"]
    before, after = asked(running, first), asked(running, second.rsplit("/", 1)[1])
    assert after["request"] == {**before["request"], "resamples": 50}
    other = running.client.get(f"/probes/new/floor?from={first}", headers=HTML)
    assert other.status_code == 404


def test_a_report_of_the_command_line_can_be_run_again(running: Any) -> None:
    from driftscope_service.demo import load

    body = running.client.post("/v1/reports", json=load.recorded_report(KINDS["floor"], "floor"))
    page = running.client.get(body.json()["links"]["page"], headers=HTML).text
    job = body.json()["links"]["job"].rsplit("/", 1)[1]
    assert f'href="/probes/new/floor?from={job}"' in page
    sent = form(running, "floor", f"?from={job}")
    recorded = load.recorded_report(KINDS["floor"], "floor")["request"]
    assert sent["model"] == [recorded["model"]] and sent["prompts"] == [str(recorded["prompts"])]


def test_a_key_that_may_only_read_sees_why_it_may_not_start(run_service: Any) -> None:
    with run_service(require_keys=True) as running:
        for scopes, may in (([Scope.READ], False), ([Scope.READ, Scope.PROBE], True)):
            key = new_key()
            with running.service.database.write() as connection:
                KeyRepository(connection).add(key, name="n", scopes=scopes, expires_at=None)
            running.client.headers["authorization"] = f"Bearer {key.token}"
            page = running.client.get("/probes/new/floor", headers=HTML).text
            assert ("this needs probe" in page) is not may
            assert ('class="primary" disabled' in page) is not may
            assert "$DRIFTSCOPE_API_KEY" in page
            sent = Controls(page).sent
            assert send(running, "floor", sent, "/check").status_code == 200
            assert send(running, "floor", sent).status_code == (303 if may else 403)


def test_another_origin_starts_nothing(running: Any) -> None:
    sent = form(running, "floor")
    refused = running.client.post(
        "/probes/new/floor", data=sent, headers={"origin": "http://evil.example"}
    )
    assert refused.status_code == 403
    assert running.client.get("/v1/jobs").json()["jobs"] == []


def test_markup_that_was_typed_is_text(running: Any) -> None:
    sent = {**form(running, "paired"), "trainer_dtypes": ['"><script>alert(1)</script>']}
    page = send(running, "paired", sent).text
    assert "<script>alert" not in page


@pytest.fixture
def real_service(
    make_settings: Any, serving: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Whose probes are the real ones."""
    roots = (str(ROOT / root) for root in ("probes", "kernels", "service"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(roots))
    with open_service(make_settings()) as service:
        with TestClient(create_app(service), base_url="http://127.0.0.1:8321"):
            with serving(SimpleNamespace(service=service)) as url:
                yield url


@pytest.mark.slow
def test_a_real_probe_from_the_form_to_its_diagnosis(
    real_service: str, browser: Any, accessible: Callable[[Page], None]
) -> None:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"{real_service}/probes")
    expect(page.get_by_text("No report in this data folder yet")).to_be_visible()
    page.get_by_role("link", name="Start a probe").click()
    page.get_by_role("link", name="Paired probe").click()
    page.get_by_label("model", exact=False).first.select_option(MODEL)
    page.get_by_label("prompts").fill("2")
    page.get_by_label("fp16").uncheck()
    page.get_by_role("checkbox", name="fp32").uncheck()
    page.get_by_label("trainer dtypes").fill("bf16")
    page.get_by_label("resamples").fill("50")
    page.get_by_text("Sampling", exact=True).click()
    page.get_by_label("max tokens").fill("8")
    page.get_by_text("Engine", exact=True).click()
    page.locator('[id="engine.kind"]').select_option("hf")
    # What stands beside it follows without the page being sent.
    same = page.locator("#same")
    expect(same).to_contain_text(f"--model {MODEL} --prompts 2")
    expect(same).to_contain_text("--engine hf")
    accessible(page)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page).to_have_url(f"{real_service}/jobs/" + page.url.rsplit("/", 1)[1])
    # Its first second says more than "0 %".
    expect(page.get_by_role("group", name="Stages, table")).to_contain_text(
        "starting a process", timeout=30_000
    )
    opened = page.get_by_role("link", name="Open the report")
    expect(opened).to_be_visible(timeout=PROBE_PATIENCE_MS)
    expect(page.get_by_role("group", name="Stages, table")).to_contain_text("importing")
    opened.click()
    diagnosis = page.locator("#diagnosis")
    expect(diagnosis).to_contain_text("bf16 × bf16")
    for words in ("Which side", "What to change"):
        place = diagnosis.get_by_text(words).first.bounding_box()
        assert place is not None and place["y"] + place["height"] < 900, words
    page.goto(f"{real_service}/probes")
    row = page.get_by_role("group", name="Paired probes, table").locator("tbody tr").first
    expect(row).to_contain_text(MODEL)
    expect(row.locator(".state")).to_be_visible()
    page.get_by_role("link", name="Delete report_").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No report in this data folder yet")).to_be_visible()
    assert wrong == []


@pytest.mark.slow
def test_what_is_changed_is_marked_as_it_is_typed(site: Any, look: Any) -> None:
    body = {
        **{"model": MODEL, "prompts": ["succeed"], "resamples": 100},
        **{"engine_dtypes": ["bf16"], "trainer_dtypes": ["bf16"]},
    }
    job = site.client.post("/v1/probes/paired", json=body).json()["id"]
    page = look().at(f"/probes/new/paired?from={job}")
    field = page.locator(".field", has=page.locator("#resamples"))
    expect(field.locator(".mark")).to_be_hidden()
    page.locator("#resamples").fill("70")
    expect(field.locator(".mark")).to_be_visible()
    page.locator("#resamples").press("Tab")
    expect(page.locator("#changes")).to_contain_text("resamples: 100 → 70")
    page.locator("#resamples").fill("100")
    expect(field.locator(".mark")).to_be_hidden()
    page.get_by_label("fp32").first.check()
    expect(page.locator("#changes")).to_contain_text("engine_dtypes: bf16 → bf16, fp32")
