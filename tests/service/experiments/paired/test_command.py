"""Prompts that `driftscope probe paired` reads: a number, lines of text, lines of JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.prompts import Message
from driftscope_service.terminal.prompt_file import MAX_FILE_BYTES, read_prompts_option

PROMPTS = ["one", "  two ", "drei ✓"]


@pytest.mark.parametrize("blank", ["", "\n", "   \n"])
def test_the_same_prompts_from_text_and_json(tmp_path: Path, blank: str) -> None:
    text, lines = tmp_path / "p.txt", tmp_path / "p.jsonl"
    text.write_text(blank + "\n".join(PROMPTS), encoding="utf-8")
    lines.write_text(blank + "\n".join(json.dumps({"prompt": p}) for p in PROMPTS))
    assert read_prompts_option(str(text)) == read_prompts_option(str(lines)) == PROMPTS
    assert read_prompts_option("3") == 3


def test_a_conversation_is_messages(tmp_path: Path) -> None:
    message = {"role": "user", "content": "hello"}
    (tmp_path / "p.jsonl").write_text(json.dumps({"messages": [message]}))
    assert read_prompts_option(str(tmp_path / "p.jsonl")) == [[Message(**message)]]


@pytest.mark.parametrize(
    "line", ["{", "1", "[]", "{}", '{"prompt": 1}', '{"messages": [{"role": "user"}]}']
)
def test_a_line_that_is_not_a_prompt_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n\n{line}\n')
    with pytest.raises(RequestError, match=r"p\.jsonl line 3 "):
        read_prompts_option(str(path))


def test_a_file_that_cannot_be_prompts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    for content, told in ((b"\xff", "not UTF-8"), (b" \n", "holds no prompt")):
        path.write_bytes(content)
        with pytest.raises(RequestError, match=told):
            read_prompts_option(str(path))
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(RequestError, match="at most"):
        read_prompts_option(str(path))
    with pytest.raises(RequestError, match="neither a number nor a file"):
        read_prompts_option("-1")
