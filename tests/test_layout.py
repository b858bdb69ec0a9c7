"""The tree keeps its shape: plain roots, one-way imports, a service that starts without torch."""

import ast
import importlib.util
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from driftscope_service.experiments.registry import EXPERIMENTS

ROOT = Path(__file__).parents[1]
ROOTS = ("service", "probes", "kernels")
#: Of the three roots, by the name under which they are imported.
MODULES = {
    ".".join(path.relative_to(ROOT / root).with_suffix("").parts).removesuffix(".__init__"): path
    for root in ROOTS
    for path in (ROOT / root).rglob("*.py")
}


@pytest.mark.parametrize("root", ROOTS)
def test_a_root_is_no_package(root: str) -> None:
    """A package called `kernels` would shadow Hugging Face's and break transformers."""
    assert not (ROOT / root / "__init__.py").exists()
    assert (ROOT / root / f"driftscope_{root}" / "py.typed").exists()


def test_kernels_on_the_path_is_not_ours() -> None:
    spec = importlib.util.find_spec("kernels")
    assert spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(ROOT)


@pytest.mark.parametrize(
    "module",
    [
        "driftscope_service.cli.main",
        "driftscope_service.app",
        "driftscope_probes.mismatch",
        "driftscope_probes.trace_file",
        "driftscope_probes.paired.request",
        "driftscope_probes.push",
        "driftscope_probes.mismatch.frameworks",
        "driftscope_probes.determinism.request",
        "driftscope_probes.nightly.request",
        "driftscope_probes.kernels.request",
        "driftscope_probes.device.environment",
        "driftscope_probes.mismatch.thresholds",
        "driftscope_probes.drift",
        "driftscope_probes.numbers",
        "driftscope_probes.verdicts",
        "driftscope_client",
    ],
)
def test_imports_without_the_heavy_packages(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'vllm', 'transformers', 'numba'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} imported' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_the_web_framework() -> None:
    code = (
        "import sys; from driftscope_service.cli.main import build_app; build_app()\n"
        "heavy = {'fastapi', 'sqlalchemy'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} imported' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kernels_import_without_numba() -> None:
    """vLLM 0.32 cannot start an engine in a process that has loaded llvmlite."""
    code = "import sys, driftscope_kernels.ops, driftscope_kernels.cpu.registered; "
    code += "sys.exit('llvmlite' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_vague_file_names() -> None:
    vague = {"utils", "common", "helpers", "misc"}
    found = [
        path
        for root in (*ROOTS, "tests", "bench")
        for path in (ROOT / root).rglob("*.py")
        if path.stem in vague or path.parent.name in vague
    ]
    assert not found


def kinds_that_know_each_other(imports: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """Whatever kinds there are: a new one needs no line here, nor in the import contracts."""
    packages = {name: name.rpartition(".")[2] for name in EXPERIMENTS}
    return {
        (kind, other)
        for package, kind in packages.items()
        for importer, imported in imports.items()
        if importer.startswith(f"{package}.")
        for other_package, other in packages.items()
        if other != kind and any(name.startswith(f"{other_package}.") for name in imported)
    }


def test_an_experiment_knows_no_other() -> None:
    assert kinds_that_know_each_other(read_imports(MODULES)) == set()


def test_a_planted_acquaintance_is_found() -> None:
    paired, kernels = EXPERIMENTS[0], EXPERIMENTS[1]
    planted = {f"{paired}.page": {f"{kernels}.matrix"}}
    assert kinds_that_know_each_other(planted) == {("paired", "kernels")}


def test_no_circle_of_folders() -> None:
    """Of the parts of a package, each a file or a folder, none imports itself by way of others."""
    assert circles(read_imports(MODULES)) == []


def test_a_planted_circle_is_found() -> None:
    imports = {
        "p.a.x": {"p.b.y", "p.c"},
        "p.b.y": {"p.c"},
        "p.c": {"p.a.z"},
        "p.a.z": {"p.d"},
        "p.d.e": {"p.d"},
        "p.d": {"p.d.e"},
    }
    assert circles(imports) == ["p.d: __init__ e", "p: a b c"]


def read_imports(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    return {name: set(_imported(path, modules)) for name, path in modules.items()}


def _imported(path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """Those inside functions as well: what is put off is imported all the same."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def circles(imports: Mapping[str, set[str]]) -> list[str]:
    """As "package: its parts that import each other"."""
    within: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for importer, imported in imports.items():
        for name in imported & imports.keys() - {importer}:
            package, one, other = _apart(importer, name)
            within[package][one].add(other)
    found = [
        f"{package}: {' '.join(sorted(circle))}"
        for package, edges in within.items()
        for circle in _circles_of(edges)
    ]
    return sorted(found)


def _apart(one: str, other: str) -> tuple[str, str, str]:
    """The package that both are in, and the part of it that each is in."""
    names, others = one.split("."), other.split(".")
    depth = len(os.path.commonprefix([names, others]))
    parts = ((*each, "__init__")[depth] for each in (names, others))
    return ".".join(names[:depth]), next(parts), next(parts)


def _circles_of(edges: Mapping[str, set[str]]) -> set[frozenset[str]]:
    reached = {part: _reached(part, edges) for part in edges}
    return {
        frozenset(other for other in reached[part] if part in reached.get(other, ()))
        for part in edges
        if part in reached[part]
    }


def _reached(part: str, edges: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = {part}
    while ahead:
        ahead = set().union(*(edges.get(each, set()) for each in ahead)) - reached
        reached |= ahead
    return reached


def test_import_rules_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
