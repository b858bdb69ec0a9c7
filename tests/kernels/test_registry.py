from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels import registry
from driftscope_kernels.contract.contract import CONTRACTS
from driftscope_kernels.reference import linear as reference_linear
from driftscope_kernels.registry import (
    DuplicateKernelError,
    Implementation,
    Kernel,
    implementation,
    implementations,
    kernels,
    register,
    using,
)

ROOT = Path(__file__).parents[2]
FLOAT32 = frozenset({torch.float32})


def run(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
    return inputs["x"]


@pytest.fixture
def _no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    kernels()
    monkeypatch.setattr(registry, "_kernels", dict(registry._kernels))


@pytest.mark.usefixtures("_no_trace")
def test_a_registered_kernel_is_listed_once() -> None:
    mine = Kernel("acme", "linear", "mine", run, FLOAT32)
    register(mine)
    register(mine)
    assert kernels("acme") == (mine,)
    assert mine in kernels(op="linear") and mine not in kernels(op="softmax")
    with pytest.raises(DuplicateKernelError, match="acme/linear/mine is registered already"):
        register(Kernel("acme", "linear", "mine", run, FLOAT32, note="another"))


def test_ours_are_there_for_every_op_that_has_a_contract() -> None:
    ours = [k for k in kernels("driftscope") if k.implementation == "reference"]
    forward = {kernel.op for kernel in ours if ".grad" not in kernel.op}
    # Attention is checked as decode and as prefill.
    assert forward - {"attention_prefill"} == set(CONTRACTS)


def test_ops_take_the_first_implementation_of_the_preference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    implementations()
    fast = Implementation("linear", "cpu", run, FLOAT32)
    monkeypatch.setattr(
        registry, "_implementations", {**registry._implementations, ("linear", "cpu"): fast}
    )
    assert implementation("linear", torch.float32) is run
    assert implementation("linear", torch.bfloat16) is reference_linear.linear
    with using("reference"):
        assert implementation("linear", torch.float32) is reference_linear.linear
    with using("cpu"), pytest.raises(LookupError, match="no implementation 'cpu' of linear for"):
        implementation("linear", torch.bfloat16)
    with pytest.raises(ValueError, match="choose one of cpu, reference"), using("gpu"):
        pass


# A package of someone else's: the module and the packaging that docs/add-a-kernel.md shows.
def code_block(language: str) -> str:
    text = (ROOT / "docs" / "add-a-kernel.md").read_text()
    return text.split(f"```{language}\n")[1].split("```")[0]


@pytest.fixture
def outside_package(tmp_path: Path) -> Path:
    """The folder that a `pip install` of it would fill."""
    (tmp_path / "acme_kernels.py").write_text(code_block("python"))
    entry_points = code_block("toml").replace('[project.entry-points."', "[").replace('"]', "]")
    metadata = tmp_path / "acme_kernels-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-kernels\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points.replace('"', ""))
    return tmp_path


def in_a_fresh_process(program: str, package: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(package), str(ROOT / "kernels")])
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


LIST = """
import json, torch
from driftscope_kernels.registry import kernels
(kernel,) = kernels("acme")
y = kernel.run({"x": torch.ones(2, 3), "weight": torch.ones(4, 3)}, {})
ours = len(kernels("driftscope")) > 0
print(json.dumps([kernel.name, list(y.shape), len(kernels("acme")), ours]))
"""


def test_an_outside_package_brings_its_kernel_by_entry_point(outside_package: Path) -> None:
    done = in_a_fresh_process(LIST, outside_package)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["acme/linear/stock", [2, 4], 1, True]


CHECK = """
import json, torch
from driftscope_kernels.check.run_check import Plan, check_kernel
from driftscope_kernels.registry import kernels
(theirs,) = kernels("acme")
stock = next(k for k in kernels("torch", "linear") if k.implementation == "eager")
plan = Plan(quick=True)
verdicts = [check_kernel(kernel, torch.float32, plan).to_dict() for kernel in (theirs, stock)]
print(json.dumps([verdict["verdict"] for verdict in verdicts]))
"""


def test_the_checker_judges_it_as_it_does_torch(outside_package: Path) -> None:
    done = in_a_fresh_process(CHECK, outside_package)
    assert done.returncode == 0, done.stderr
    theirs, stock = json.loads(done.stdout)
    assert theirs == stock


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "returned int, not kernels"),
        ("yield 'linear'", "returned a str; every item has to be"),
        ("raise RuntimeError('no such device')", "no such device"),
    ],
)
def test_an_entry_point_that_brings_none_is_named(
    body: str, message: str, outside_package: Path
) -> None:
    (outside_package / "acme_kernels.py").write_text(f"def kernels():\n    {body}\n")
    done = in_a_fresh_process(LIST, outside_package)
    assert done.returncode != 0 and message in done.stderr
