"""/lint: paste or choose files, and see what is known to go wrong with them. Works without scripts.

What is sent is read in memory and not kept.
"""

from __future__ import annotations

from email.message import Message
from email.parser import BytesParser
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from driftscope_probes.lint.rules.registry import ALL_RULES
from driftscope_service.http.errors import InvalidField
from driftscope_service.lint.asked import Answered, LintBody, answer
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.terminal.differences import TITLES, difference_sentence
from driftscope_service.terminal.findings import read_sentence

router = APIRouter(prefix="/lint", include_in_schema=False, route_class=PageRoute)
UNPROCESSABLE: Final = 422
#: Controls of the form that are not files: what is pasted, under which name, and a command.
TEXTS: Final = ("text", "name", "command", "other_text", "other_name")
#: A pasted text's name where none is given; its form is found out by its content.
PASTED: Final = "pasted"


@router.get("")
def get_lint(request: Request) -> Response:
    return _page(request, {}, None)


@router.post("")
async def post_lint(request: Request) -> Response:
    kind, body = request.headers.get("content-type", ""), await request.body()
    return await run_in_threadpool(_answered, request, kind, body)


def _answered(request: Request, kind: str, body: bytes) -> Response:
    typed, sides = _form(kind, body)
    try:
        asked = LintBody.model_validate(
            {**sides[0], "command": typed.get("command") or None, "against": sides[1]}
        )
        return _page(request, typed, answer(asked))
    except ValidationError as error:
        first = error.errors()[0]
        place = "/".join(str(part) for part in first["loc"][:3])
        return _page(request, typed, None, f"{place}: {first['msg']}", status=UNPROCESSABLE)
    except InvalidField as error:
        wrong = f"{error.detail.rstrip('.')}. What to do: {error.extras['remedy']}"
        return _page(request, typed, None, wrong, status=UNPROCESSABLE)


def _page(
    request: Request,
    typed: dict[str, str],
    answered: Answered | None,
    wrong: str | None = None,
    *,
    status: int = 200,
) -> Response:
    compared = None if answered is None else answered.comparison
    return page(
        request,
        "lint/templates/lint",
        title="Lint",
        section="lint",
        status=status,
        typed={name: typed.get(name, "") for name in TEXTS},
        wrong=wrong,
        rules=len(ALL_RULES),
        report=None if answered is None else answered.report,
        read=None if answered is None else read_sentence(answered.report),
        compared=compared,
        compared_sentence=None if compared is None else difference_sentence(compared),
        titles=TITLES,
    )


def _form(kind: str, body: bytes) -> tuple[dict[str, str], tuple[dict[str, Any], dict[str, Any]]]:
    """What was typed, and the files of the two sides: those chosen, and what was pasted."""
    typed: dict[str, str] = {}
    files: dict[str, dict[str, str]] = {"files": {}, "other_files": {}}
    for part in _parts(kind, body):
        name = str(part.get_param("name", "", "content-disposition"))
        content = part.get_payload(decode=True)
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else ""
        if name in files:
            if text.strip():
                files[name][_base_name(part.get_filename() or PASTED)] = text
        else:
            typed[name] = text.replace("\r\n", "\n")
    for side, prefix in (("files", ""), ("other_files", "other_")):
        pasted = typed.get(f"{prefix}text", "")
        if pasted.strip():
            files[side][typed.get(f"{prefix}name", "").strip() or PASTED] = pasted
    return typed, ({"files": files["files"]}, {"files": files["other_files"]})


def _parts(kind: str, body: bytes) -> list[Message]:
    """Of multipart/form-data, which the standard library reads as the mail it looks like."""
    head = b"Content-Type: " + kind.encode("latin-1", "replace") + b"\r\n\r\n"
    read = BytesParser().parsebytes(head + body)
    if not read.is_multipart():
        raise InvalidField("", "this is not the form of this page", remedy="send it from /lint.")
    payload = read.get_payload()
    return [part for part in payload if isinstance(part, Message)] if payload else []


def _base_name(name: str) -> str:
    """Some browsers send the path of a chosen file."""
    return name.replace("\\", "/").rpartition("/")[2] or PASTED
