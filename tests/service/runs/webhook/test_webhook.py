"""The webhook: a change of a run's answer reaches a real receiver once, signed, in order."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL
from typer.testing import CliRunner

from driftscope_probes.diagnosis.catalogue import Catalogue
from driftscope_probes.diagnosis.families.registry import BY_NAME
from driftscope_service.cli.webhook import app as webhook_app
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.webhook import body, notices
from driftscope_service.runs.webhook.body import Webhook, WebhookFormat, body_of
from driftscope_service.runs.webhook.notices import Notice, NoticeRepository
from driftscope_service.runs.webhook.post import Refused
from driftscope_service.runs.webhook.sender import ATTEMPTS, WebhookSender
from driftscope_service.settings import SettingsError, load_settings
from driftscope_service.store import migrate
from driftscope_service.store.database import Database

ROOT = Path(__file__).parents[4]
SECRET = "a secret of the operator's"
PATH = "/hooks/T0/its-own-secret"


def verify() -> Callable[..., bool]:
    """As docs/webhook.md has it."""
    page = (ROOT / "docs" / "webhook.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    found: Callable[..., bool] = names["is_from_driftscope"]
    return found


@dataclass
class Receiver:
    """Answers as it is told, then with 200."""

    url: str = ""
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.requests]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answers = receiver.answers
            status, headers, text = answers.pop(0) if answers else (200, {}, b"")
            receiver.requests.append((self.path, dict(self.headers), body))
            receiver.may_answer.wait(30)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}{PATH}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.may_answer.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with receiving() as receiver:
        yield receiver


def webhook(receiver: Receiver, form: WebhookFormat = "json") -> Webhook:
    return Webhook(receiver.url, form, SECRET, "https://drift.example.com")


def answered(verdict: str | None, cause: str | None = None, run: str = "r", step: int = 1) -> Run:
    """A run as its row says it after a step."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        **{"number": 1, "name": run, "model": "m", "framework": None, "engine": None},
        **{"rollout_dtype": None, "trainer_dtype": None, "labels": {}, "created_at": now},
        **{"updated_at": now, "activity": 1, "complete_steps": 1, "last_step": step},
        **{"last_step_at": now, "finished_at": None, "received_steps": 1, "refused_steps": 0},
        **{"compared_tokens": 1, "nonfinite_tokens": 0, "confident_disagreements": 0},
        **{"attempt": 1, "revision": 1, "note": None, "pinned_at": None, "verdict": verdict},
        **{"excess": 7.0, "cause": cause, "confidence": 0.9, "crossed": 0},
    }
    return Run(**values)


NOTHING, FINE = answered(None), answered("at_floor")
BUG, OTHER = answered("bug_like", "norm_eps"), answered("bug_like", "unexplained", step=2)


def note(database: Database, before: Run, after: Run) -> int | None:
    with database.write() as connection:
        return NoticeRepository(connection).note(before, after)


def waiting(database: Database) -> list[Notice]:
    with database.read() as connection:
        return NoticeRepository(connection).waiting()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    migrate.upgrade(tmp_path / "a.db")
    database = Database(tmp_path / "a.db")
    yield database
    database.dispose()


@contextmanager
def sending(database: Database, to: Webhook, instance: str = "i") -> Iterator[WebhookSender]:
    sender = WebhookSender(database, to, instance, first_wait_s=0.02, quiet_s=0.0)
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()


def test_what_is_told_and_what_is_not(database: Database) -> None:
    for before, after in ((NOTHING, FINE), (FINE, FINE), (BUG, BUG), (BUG, NOTHING)):
        assert note(database, before, after) is None
    assert note(database, FINE, BUG) == 0
    note(database, BUG, OTHER)  # nobody was told of the first: it says the newest
    (one,) = waiting(database)
    assert (one.verdict, one.cause, one.step) == ("bug_like", "unexplained", 2)
    assert (one.previous_verdict, one.previous_cause) == ("at_floor", None)
    note(database, OTHER, replace(FINE, verdict="bitwise_equal"))
    assert waiting(database) == []  # it is fine again, and nobody knew

    note(database, NOTHING, BUG)
    (begun,) = waiting(database)
    with database.write() as connection:
        repository = NoticeRepository(connection)
        assert repository.begin(begun.number, 0, datetime.now(UTC))
        assert not repository.begin(begun.number, 0, datetime.now(UTC))  # by another process
    note(database, BUG, FINE)
    told, recovered = waiting(database)
    assert (told.verdict, recovered.verdict) == ("bug_like", "at_floor")
    assert [one.id for one in notices.due([told, recovered], datetime.now(UTC))] == [told.id]


def test_the_newest_stay_where_nobody_takes_them(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "MOST_WAITING", 3)
    dropped = [note(sqlite, FINE, replace(BUG, name=f"r{number}")) for number in range(5)]
    assert dropped == [0, 0, 0, 1, 1]
    assert [one.run for one in waiting(sqlite)] == ["r2", "r3", "r4"]


def test_a_receiver_gets_it_signed_and_again_until_it_takes_it(
    sqlite: Database, receiver: Receiver, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "driftscope")
    receiver.answers += [
        (503, {}, f"down: {PATH} {SECRET}".encode()),
        (429, {"Retry-After": "0"}, b""),
    ]
    note(sqlite, FINE, BUG)
    with sending(sqlite, webhook(receiver)) as sender:
        eventually(lambda: sender.counts.results["delivered"] == 1)
    assert sender.counts.results == {"delivered": 1, "retried": 2, "failed": 0, "dropped": 0}
    assert waiting(sqlite) == [] and len(receiver.requests) == 3
    assert len({headers["Driftscope-Delivery"] for _, headers, _ in receiver.requests}) == 1
    path, headers, body = receiver.requests[-1]
    assert path == PATH
    is_from_driftscope = verify()
    assert is_from_driftscope(headers, body, SECRET)
    assert not is_from_driftscope(headers, body + b" ", SECRET)
    assert not is_from_driftscope(headers, body, "another secret")
    assert not is_from_driftscope({**headers, "Driftscope-Timestamp": "1000000000"}, body, SECRET)
    told = receiver.bodies[-1]
    assert (told["run"], told["verdict"], told["cause"]) == ("r", "bug_like", "norm_eps")
    assert told["page"] == "https://drift.example.com/runs/r/steps/1"
    assert told["previous"] == {"verdict": "at_floor", "cause": None}
    page = (ROOT / "docs" / "webhook.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```json\n(.+?)```", page, re.DOTALL)
    assert json.loads(shown).keys() == told.keys()
    assert "tried again" in caplog.text
    assert SECRET not in caplog.text and PATH not in caplog.text


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((302, {"Location": "/elsewhere"}, b""), "redirects are not followed"),
        ((404, {}, b"no_service\n" + b"x" * 100_000), "status 404: no_service"),
    ],
)
def test_what_is_refused_for_good_is_given_up_and_said(
    sqlite: Database,
    receiver: Receiver,
    eventually: Any,
    caplog: pytest.LogCaptureFixture,
    answer: tuple[int, dict[str, str], bytes],
    told: str,
) -> None:
    receiver.answers.append(answer)
    note(sqlite, FINE, BUG)
    with sending(sqlite, webhook(receiver)) as sender:
        eventually(lambda: sender.counts.results["failed"] == 1)
    assert [path for path, _, _ in receiver.requests] == [PATH]
    assert told in caplog.text and "run r is bug_like since step 1" in caplog.text
    assert waiting(sqlite) == []


def test_nobody_there_is_given_up_after_the_last_attempt(
    sqlite: Database, receiver: Receiver, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(*_: object) -> Refused:
        return Refused("no answer (ConnectError)", again=True, wait_s=0.0)

    monkeypatch.setattr("driftscope_service.runs.webhook.sender.posted", nobody)
    note(sqlite, FINE, BUG)
    with sending(sqlite, webhook(receiver)) as sender:
        eventually(lambda: sender.counts.results["failed"] == 1)
    assert sender.counts.results["retried"] == ATTEMPTS - 1


def test_of_two_replicas_one_sends(
    postgresql_url: URL, receiver: Receiver, eventually: Any
) -> None:
    migrate.upgrade(postgresql_url)
    databases = [Database(postgresql_url) for _ in range(2)]
    runs = [f"r{number}" for number in range(6)]
    with ExitStack() as stack:
        for database in databases:
            stack.callback(database.dispose)
        senders = [
            stack.enter_context(sending(database, webhook(receiver), f"i{number}"))
            for number, database in enumerate(databases)
        ]
        for run in runs:
            note(databases[0], replace(FINE, name=run), replace(BUG, name=run))
            for sender in senders:
                sender.announce(0)
        eventually(lambda: not waiting(databases[0]))
    assert sorted(body["run"] for body in receiver.bodies) == runs


def test_a_chat_gets_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Any] = {
        **{"number": 1, "id": "notice_1", "run": "r", "model": None, "step": 4},
        **{"verdict": "bug_like", "cause": "norm_eps", "confidence": 0.93, "excess": 7.0},
        **{"previous_verdict": "at_floor", "previous_cause": None, "attempts": 0},
        **{"created_at": datetime.now(UTC), "not_before": None},
    }
    notice = Notice(**values)
    slack = Webhook("", "slack", "", "https://d")
    first, second = json.loads(body_of(notice, slack))["text"].splitlines()
    assert (
        first
        == "<https://d/runs/r/steps/4|r, step 4>: *bug-like, norm_eps (0.93)*, was at the floor"
    )
    assert second.endswith("<https://d/docs/causes/norm_eps|what to do>")
    # Of a cause that another package offers the documentation has no page; the catalogue has.
    acme = replace(BY_NAME["norm_eps"], name="acme_eps", offered_by="acme 1.0")
    known = Catalogue((acme,), {"acme_eps": acme}, ())
    monkeypatch.setattr(body, "catalogue", lambda: known)
    second = json.loads(body_of(replace(notice, cause="acme_eps"), slack))["text"].splitlines()[1]
    assert second.endswith("<https://d/causes/acme_eps|what to do>")


def test_a_push_does_not_wait_for_the_receiver(
    run_service: Any, receiver: Receiver, pushing_to: Any, eventually: Any
) -> None:
    receiver.may_answer.clear()
    given = {"webhook_url": receiver.url, "webhook_secret": SECRET, "public_url": "https://d/"}
    with run_service(**given) as running:
        pushing = pushing_to(running)
        assert pushing.push(pushing.same(), step=1).status_code == 201
        shifted = pushing.tensors((40, 40))
        shifted["trainer_logprobs"] = shifted["rollout_logprobs"] - 3.0
        assert pushing.push(pushing.body(**shifted), step=2).status_code == 201
        eventually(lambda: len(receiver.requests) == 1)
        assert pushing.push(pushing.same(seed=2), step=3).status_code == 201  # it still hangs
        page = running.client.get("/metrics").text
        assert 'driftscope_worker_up{worker="webhook"} 1.0' in page
        assert 'driftscope_webhook_notices_total{result="delivered"} 0.0' in page
        receiver.may_answer.set()
        delivered = 'driftscope_webhook_notices_total{result="delivered"} 1.0'
        eventually(lambda: delivered in running.client.get("/metrics").text)
        with running.service.database.read() as connection:
            run = RunRepository(connection).get("r")
    assert run is not None and run.verdict == "bitwise_equal"
    (told,) = receiver.bodies  # that it is fine again waits for the quiet minute
    assert (told["run"], told["step"], told["page"]) == ("r", 2, "https://d/runs/r/steps/2")
    assert told["verdict"] in ("above_floor", "bug_like") and told["model"] == "m"


@pytest.mark.usefixtures("clean_environment")
def test_an_operator_tries_it(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no webhook is set" in str(CliRunner().invoke(webhook_app, ["test"]).exception)
    monkeypatch.setenv("DRIFTSCOPE_WEBHOOK_URL", receiver.url)
    monkeypatch.setenv("DRIFTSCOPE_WEBHOOK_SECRET", SECRET)
    receiver.answers.append((500, {}, b"not now"))
    refused = CliRunner().invoke(webhook_app, ["test"])
    assert (refused.exit_code, refused.stderr) == (1, "not taken: status 500: not now\n")
    taken = CliRunner().invoke(webhook_app, ["test"])
    assert taken.exit_code == 0 and taken.stdout.startswith("taken: notice_")
    _, headers, body = receiver.requests[-1]
    assert verify()(headers, body, SECRET) and receiver.bodies[-1]["run"] == "webhook-test"


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"WEBHOOK_URL": "https://h.example/x"}, "needs DRIFTSCOPE_WEBHOOK_SECRET"),
        ({"WEBHOOK_URL": "file:///hidden"}, "not an http or https address"),
        ({"WEBHOOK_SECRET": "hidden"}, "fewer than 16 characters"),
        ({"PUBLIC_URL": "https://u:hidden@h"}, "without user, query and fragment"),
    ],
)
def test_settings_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"DRIFTSCOPE_{name}", value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert told in str(refused.value)
    assert "PUBLIC_URL" in variables or "hidden" not in str(refused.value)
