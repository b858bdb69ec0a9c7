"""The tree keeps its shape: plain roots, one-way imports, a service that starts without torch."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = ("service", "probes", "kernels")


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
        "driftscope_probes.device.environment_change",
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


def test_import_rules_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
