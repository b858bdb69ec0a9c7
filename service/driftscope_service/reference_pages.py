"""Writes docs/reference/: `python -m driftscope_service.reference_pages docs/reference`.

In: the tables that the program itself goes by. Out: a page each of its numbers, words, causes by
their symptoms, commands with every option, requests and errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from typer.core import TyperGroup, TyperOption
from typer.main import get_command

from driftscope_probes.diagnosis.families.base import LEVELS
from driftscope_probes.diagnosis.families.registry import CAUSES
from driftscope_probes.numbers import NUMBERS
from driftscope_service.cli.main import build_app
from driftscope_service.http.problem_kinds import KINDS
from driftscope_service.numbers.glossary import GROUPS
from driftscope_service.openapi_file import openapi_document
from driftscope_service.pages.documentation import document

MADE: Final = (
    "Rendered by `python -m driftscope_service.reference_pages docs/reference` from {source}; edit "
    "that, not this page."
)


def numbers_page() -> str:
    rows = (
        (f"`{row.name}`", row.label, row.unit or "–", f"{row.ideal:g}", _metric_of(row.name))
        for row in NUMBERS.values()
    )
    head = ("name", "what it is", "unit", "where both agree", "on `/metrics`, after its prefix")
    return _page("Numbers", "`probes/driftscope_probes/numbers.py`", _table(head, rows))


def _metric_of(name: str) -> str:
    row = NUMBERS[name]
    if row.export is None:
        return ""
    label = f'{{{row.export.label}="{row.export_label}"}}' if row.export.label else ""
    return f"`{row.export.stem}_{row.export.unit}{label}`"


def glossary_page() -> str:
    parts = []
    for group, terms in GROUPS.items():
        rows = ((term.name, term.told, f"[{term.doc}]({_address(term.doc)})") for term in terms)
        parts.append(f"## {group}\n\n{_table(('word', 'meaning', 'more'), rows)}")
    return _page("Glossary", "`service/driftscope_service/numbers/glossary.py`", "\n".join(parts))


def _address(doc: str) -> str:
    """As the service has them under /docs, where the first page of a folder is the folder's."""
    name, _, anchor = doc.partition("#")
    found = document(name)
    assert found is not None, doc
    return f"../{found.name}.md{'#' * bool(anchor)}{anchor}"


def symptoms_page() -> str:
    """In the order in which a diagnosis reasons: an earlier cause explains later symptoms."""
    told = sorted(CAUSES, key=lambda cause: LEVELS.index(cause.level))
    rows = (
        (cause.signature, f"[{cause.name}](../causes/{cause.name}.md): {cause.title}", cause.remedy)
        for cause in told
    )
    table = _table(("what the data look like", "cause", "what to change"), rows)
    return _page("From symptom to fix", "the catalogue of causes", table)


def options_page() -> str:
    command = get_command(build_app())
    root = command.context_class(command, info_name="driftscope")
    return _page("Commands and options", "the commands themselves", "\n".join(_sections(root)))


def _sections(context: Any) -> Iterator[str]:
    command = context.command
    for name in command.list_commands(context) if isinstance(command, TyperGroup) else ():
        assert isinstance(command, TyperGroup)
        found = command.get_command(context, name)
        if found is None or found.hidden:
            continue
        inner = found.context_class(found, info_name=name, parent=context)
        if not isinstance(found, TyperGroup) or found.invoke_without_command:
            yield _section(inner)
        yield from _sections(inner)


def _section(context: Any) -> str:
    command = context.command
    says = (command.help or "").partition("\n\n")[0].replace("\n", " ").strip()
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {context.command_path}\n", f"{_text(says)}\n", f"    {usage}\n"]
    records = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, TyperOption) and not parameter.hidden
        and (record := parameter.get_help_record(context)) is not None
    ]  # fmt: skip
    if records:
        parts.append(_table(("option", "meaning"), ((f"`{one}`", text) for one, text in records)))
    return "\n".join(parts)


def api_page() -> str:
    rows = []
    for path, operations in sorted(openapi_document()["paths"].items()):
        for method, operation in operations.items():
            answers = ", ".join(sorted(operation["responses"]))
            rows.append((f"`{method.upper()} {path}`", _first_sentence(operation), answers))
    table = _table(("request", "does", "answers"), rows)
    more = "Every field: [openapi.json](../openapi.json); in words: [push API](../push-api.md).\n"
    return _page("Requests", "the OpenAPI document", f"{more}\n{table}")


def _first_sentence(operation: Mapping[str, Any]) -> str:
    says: str = operation.get("description") or operation["summary"]
    return says.partition("\n\n")[0].replace("\n", " ").partition(". ")[0].rstrip(".")


def errors_page() -> str:
    rows = ((f"`{one.type}`", str(one.status), one.title, one.meaning) for one in KINDS)
    table = _table(("`type`", "status", "title", "what to do"), rows)
    return _page("Errors of the API", "`service/driftscope_service/http/problem_kinds.py`", table)


def _page(title: str, source: str, body: str) -> str:
    return f"# {title}\n\n{MADE.format(source=source)}\n\n{body.rstrip()}\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *((_cell(one) for one in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return _text(" ".join(text.split())).replace("|", "\\|")


def _text(text: str) -> str:
    """No HTML: `<run>` stands for a name."""
    return text if "`" in text else text.replace("<", "&lt;")


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "numbers": numbers_page,
    "glossary": glossary_page,
    "symptoms": symptoms_page,
    "options": options_page,
    "api": api_page,
    "errors": errors_page,
}


def main(arguments: Any = None) -> None:
    parser = argparse.ArgumentParser(description="Write the pages of the reference.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / f"{name}.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
