"""Parts of OpenRLHF, SkyRL and AReaL, taken from their wheels without what the wheels import.

In: a folder to download to. Out: their own batch classes, the functions that fill them, and their
configuration as it is declared.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WHEELS = ("openrlhf==0.11.2", "skyrl==0.3.0", "areal==1.0.4")
UNREACHABLE = ("No matching distribution found", "Connection", "Temporary failure", "timed out")
#: What only annotations name.
ANNOTATED = ("Float", "Integer", "AutoTokenizer")

Classes = Mapping[str, ast.ClassDef]


class SourcesUnreachable(Exception):
    """No package registry could be asked for the wheels."""


@dataclass(frozen=True, slots=True)
class FrameworkSources:
    files: Mapping[str, str]  # path within its wheel, without the folder that wheels may put first

    def source(self, path: str) -> str:
        return self.files[path]

    def namespace(self, path: str, only: Iterable[str] = (), **given: Any) -> dict[str, Any]:
        """What a file defines; imports of other packages are left out, or in `given`."""
        tree = ast.parse(self.files[path])
        tree.body = [node for node in tree.body if _stays(node, set(only))]
        names: dict[str, Any] = {"__name__": path, **dict.fromkeys(ANNOTATED, _Annotation), **given}
        exec(compile(tree, path, "exec", dont_inherit=True), names)
        return names

    def function(self, path: str, name: str, names: dict[str, Any]) -> Callable[..., Any]:
        """A method as a plain function."""
        (found,) = (
            node
            for node in ast.walk(ast.parse(self.files[path]))
            if isinstance(node, ast.FunctionDef) and node.name == name
        )
        exec(compile(ast.Module([found], []), path, "exec", dont_inherit=True), names)
        return names[name]  # type: ignore[no-any-return]

    def classes(self, path: str) -> Classes:
        found = ast.parse(self.files[path]).body
        return {node.name: node for node in found if isinstance(node, ast.ClassDef)}


def has_setting(classes: Classes, name: str, setting: Iterable[str]) -> bool:
    """Whether the configuration class `name` has that entry, by its annotations."""
    for entry in setting:
        annotation = _annotation(classes, name, entry)
        if annotation is None:
            return False
        named = [one for one in classes if one in annotation]
        name = max(named, key=len, default="")
    return True


def download(folder: Path) -> FrameworkSources:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", *WHEELS, "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and any(reason in done.stderr for reason in UNREACHABLE):
        raise SourcesUnreachable(
            f"the package registry does not give {', '.join(WHEELS)}: {done.stderr.strip()[-200:]}"
        )
    assert done.returncode == 0, done.stderr
    files = {}
    for path in folder.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                if name.endswith(".py"):
                    files[name.partition("/purelib/")[2] or name] = wheel.read(name).decode()
    return FrameworkSources(files)


class _Annotation:
    def __class_getitem__(cls, _: object) -> type:
        return cls


def _stays(node: ast.stmt, only: set[str]) -> bool:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in {"torch", *sys.stdlib_module_names}
    if isinstance(node, ast.Import):
        return all(
            name.name.split(".")[0] in {"torch", "numpy", *sys.stdlib_module_names}
            for name in node.names
        )
    return not only or getattr(node, "name", None) in only


def _annotation(classes: Classes, name: str, entry: str) -> str | None:
    declared = classes.get(name)
    if declared is None:
        return None
    for node in declared.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == entry:
            return ast.unparse(node.annotation)
    found = (_annotation(classes, ast.unparse(base), entry) for base in declared.bases)
    return next((one for one in found if one is not None), None)
