"""Prompts as the command line takes them: a count of the shipped ones, or a file."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from driftscope_probes.errors import RequestError
from driftscope_probes.paired.request import MAX_PROMPTS
from driftscope_probes.prompts import Message, Prompt

#: Far above any probe's need; a mistaken path to a data set must not fill the memory.
MAX_FILE_BYTES = 64 * 2**20


def read_prompts_option(value: str) -> list[Prompt] | int:
    """A count, or the prompts of a file. Raises RequestError."""
    if value.isdecimal():
        return int(value)
    path = Path(value)
    if not path.is_file():
        raise RequestError(
            f"--prompts {value!r} is neither a number nor a file.",
            remedy="give how many of the shipped prompts to use, or a .txt or .jsonl file.",
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise RequestError(
            f"{path} has {path.stat().st_size} bytes, at most {MAX_FILE_BYTES} are read.",
            remedy=f"give at most {MAX_PROMPTS} prompts.",
        )
    return _parse(path)


def _parse(path: Path) -> list[Prompt]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8: {error}", remedy="save it as UTF-8.") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise RequestError(f"{path} holds no prompt.", remedy="give one prompt per line.")
    if path.suffix != ".jsonl":
        return [line for _, line in numbered]
    return [_parse_json_line(path, number, line) for number, line in numbered]


def _parse_json_line(path: Path, number: int, line: str) -> Prompt:
    try:
        fields = json.loads(line)
        if isinstance(fields, dict) and isinstance(fields.get("prompt"), str):
            return str(fields["prompt"])
        return [Message(**message) for message in fields["messages"]]
    except (ValueError, ValidationError, TypeError, KeyError) as error:
        raise RequestError(
            f"{path} line {number} is not a prompt: {error or 'unknown shape'}",
            remedy='write {"prompt": "text"} or {"messages": [{"role": "user", "content": …}]}.',
        ) from error
