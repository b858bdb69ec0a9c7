"""/lint: a form that works without scripts, and what it shows of the files it is given."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

CONFIG = '{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "float16"}'


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def test_the_form_is_shown_before_anything_is_sent(running: Any) -> None:
    html = running.client.get("/lint").text
    assert 'enctype="multipart/form-data"' in html and 'name="files" multiple' in html
    assert "Nothing found" not in html


def test_chosen_and_pasted_files_are_read(running: Any) -> None:
    answer = running.client.post(
        "/lint",
        data={"text": "VLLM_BATCH_INVARIANT=1\n", "name": "run.env", "command": ""},
        files=[("files", ("C:\\models\\config.json", CONFIG))],
    )
    assert answer.status_code == 200, words(answer.text)
    told = words(answer.text)
    assert re.search(r"Read \d+ settings: \d+ in config.json, 1 in run.env; looked at", told)


def test_two_sides_show_what_can_change_numerics(running: Any) -> None:
    answer = running.client.post(
        "/lint",
        data={"text": "torch==2.9.0\nrich==14.0", "name": "pip.txt", "other_name": "pip.txt"}
        | {"other_text": "torch==2.10.0\nrich==15.0"},
        files=[("other_files", ("", b""))],
    )
    told = words(answer.text)
    assert "Can change numerics: 1 difference" in told and "2.9.0" in told and "2.10.0" in told
    assert "Cannot change numerics: 1 difference" in told


def test_what_is_not_understood_is_said_and_stays_in_the_form(running: Any) -> None:
    answer = running.client.post("/lint", data={"text": "<b>prose</b>", "name": "notes"}, files={})
    assert answer.status_code == 422
    multipart = running.client.post(
        "/lint", data={"text": "<b>prose</b>", "name": "notes"}, files=[("files", ("", b""))]
    )
    assert multipart.status_code == 422
    assert "nothing in notes is understood" in words(multipart.text).lower()
    assert "&lt;b&gt;prose&lt;/b&gt;</textarea>" in multipart.text


def test_a_path_is_no_name(running: Any) -> None:
    answer = running.client.post(
        "/lint", data={"text": CONFIG, "name": "/etc/passwd"}, files=[("files", ("", b""))]
    )
    assert answer.status_code == 422 and 'role="alert"' in answer.text
