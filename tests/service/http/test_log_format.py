"""Lines of the log: what stands in them, and that no key does."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import re
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_service.http.log_format import REQUEST_STATE, log_config, one_line, redacted
from driftscope_service.http.request_log import MAX_PATH_SHOWN

SECRET = 64 * "a"
KEY = f"dsk_0123456789ab_{SECRET}"
LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) driftscope\.requests "
    r"request_id=req_\w{26} (key_id=\w+ )?\S+ [A-Z]+ \S+ \d{3} \d+\.\d ms"
)


@pytest.fixture
def printed(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What the service's configuration writes; loggers are as before afterwards."""
    format_: Literal["text", "json"] = getattr(request, "param", "text")
    names = ("driftscope", "uvicorn")
    before = [(logging.getLogger(name), logging.getLogger(name).handlers[:],
               logging.getLogger(name).propagate, logging.getLogger(name).level)
              for name in names]  # fmt: skip
    root = logging.getLogger().handlers[:]
    into = io.StringIO()
    config = log_config(format_)
    config["handlers"]["stderr"]["stream"] = into
    del config["root"]
    logging.config.dictConfig(config)
    yield into
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    logging.getLogger().handlers = root


def test_one_line_for_each_request(running: Any, printed: io.StringIO) -> None:
    answer = running.client.get("/v1/jobs?limit=3")
    running.client.get("/v1/jobs/none")
    running.client.get("/healthz")
    lines = printed.getvalue().splitlines()
    assert len(lines) == 2  # an orchestrator's questions are left out
    for line in lines:
        assert LINE.fullmatch(line), line
    assert answer.headers["x-request-id"] in lines[0]
    assert "GET /v1/jobs?limit=3 200" in lines[0] and "GET /v1/jobs/none 404" in lines[1]


@pytest.mark.parametrize("printed", ["json"], indirect=True)
def test_as_objects(running: Any, printed: io.StringIO) -> None:
    answer = running.client.get("/v1/jobs/none")
    logging.getLogger("uvicorn.error").error("x %s", KEY)
    asked, other = map(json.loads, printed.getvalue().splitlines())
    assert {**asked, "ms": 0, "time": "", "message": ""} == {
        "time": "", "level": "INFO", "logger": "driftscope.requests",
        "request_id": answer.headers["x-request-id"], "client": "testclient", "method": "GET",
        "path": "/v1/jobs/none", "status": 404, "ms": 0, "message": "",
    }  # fmt: skip
    assert other["message"] == "x dsk_0123456789ab_…"


@pytest.mark.parametrize("printed", ["text", "json"], indirect=True)
def test_no_secret_is_written(running: Any, printed: io.StringIO) -> None:
    """In the address, however it is written, in the server's own lines and in a traceback."""
    running.client.get(f"/v1/jobs?key={KEY}")
    running.client.get(f"/v1/jobs?key={KEY.replace('s', '%73')}")
    running.client.get(f"/v1/jobs/{KEY}")
    running.client.get("/v1/jobs", headers={"authorization": f"Bearer {KEY}"})
    for name in ("uvicorn.error", "driftscope", "driftscope.jobs"):
        logging.getLogger(name).warning("%s", KEY)
        try:
            raise ValueError(KEY)
        except ValueError:
            logging.getLogger(name).exception("failed")
    text = printed.getvalue()
    assert SECRET[:16] not in text
    assert text.count("dsk_0123456789ab_…") >= 9


def test_a_client_writes_no_lines(running: Any, printed: io.StringIO) -> None:
    running.client.get("/v1/jobs/a%0A2026-01-01T00:00:00.000Z%20ERROR%1b[31m?x=%0D%0Ay")
    (line,) = printed.getvalue().splitlines()
    assert "\\n2026" in line and "\\x1b[31m" in line


def test_a_long_address_is_cut(running: Any, printed: io.StringIO) -> None:
    running.client.get("/" + "a" * 5000)
    (line,) = printed.getvalue().splitlines()
    assert line.count("a" * MAX_PATH_SHOWN) == 0 and "a" * (MAX_PATH_SHOWN - 1) in line


def test_the_request_of_other_lines(printed: io.StringIO) -> None:
    token = REQUEST_STATE.set({"request_id": "req_1", "key_id": "abc"})
    logging.getLogger("driftscope").info("a\nb")
    REQUEST_STATE.reset(token)
    assert printed.getvalue().endswith("INFO driftscope request_id=req_1 key_id=abc a\\nb\n")


@given(st.text(max_size=20), st.text(max_size=20))
def test_keys_are_found_anywhere(before: str, after: str) -> None:
    assert SECRET not in redacted(before + KEY + after)


@given(st.text(st.characters(exclude_categories=())))
def test_text_is_one_line(text: str) -> None:
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
