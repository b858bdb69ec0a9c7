"""One rule for every experiment's command: 0 nothing to say, 1 a finding, 2 could not be run.

The codes are those of docs/exit-codes.md; what each command looks for is tested beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[3]
TINY = ("--model", "tiny-random-llama")
SMALL = ("--threads", "1", "--max-tokens", "4")
PAIRED = (
    *("probe", "paired", *TINY, *SMALL, "--engine", "hf", "--engine-dtypes", "fp32", "--prompts"),
    *("1", "--trainer-dtypes", "fp32", "--no-headroom", "--resamples", "0", "--no-store"),
)
DETERMINISM = ("probe", "determinism", *TINY, *SMALL, "--engine", "hf", "--no-store")
#: A kernel of a user's own that sums otherwise in batches of one or two.
KERNEL = """
import torch
from driftscope_kernels.registry import Kernel


def summed(inputs, params):
    x, weight = inputs["x"].contiguous(), inputs["weight"].contiguous().T
    middle = x.shape[1] // 2 if len(x) <= 2 else x.shape[1]
    return x[:, :middle] @ weight[:middle] + x[:, middle:] @ weight[middle:]


def kernels():
    yield Kernel("acme", "linear", "summed", summed, frozenset({torch.float32}))
"""


def test_the_table_names_every_command_with_a_finding() -> None:
    page = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    for name in (
        "analyze",
        "probe paired",
        "probe determinism",
        "kernels check",
        "lint",
        "fingerprint diff",
        "nightly",
    ):
        assert f"`{name}`" in page


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nightly", "--list"), 0),
        (("lint", "--rules"), 0),
        (("lint", "nothing.yaml"), 2),
        (("floor", "--list"), 0),
        (("fingerprint", "--device", "nothing"), 2),
        (("fingerprint", "diff", "nothing.json", "nothing.json"), 2),
        (("kernels", "list", "--op", "linear"), 0),
        (("analyze", "nothing.json"), 2),
        (("nightly", "--config", "nothing.toml"), 2),
        (("floor",), 2),
        (("floor", "--model", "nothing"), 2),
        (("drill", "--causes", "nothing"), 2),
        (("kernels", "check", "--op", "nothing"), 2),
        (("kernels", "check", "--axis", "nothing"), 2),
        (("kernels", "check", "--replay", "{"), 2),
        (("probe", "paired", *TINY, "--prompts", "nothing.txt"), 2),
        (("probe", "paired", *TINY, "--adapter", "nothing"), 2),
        (("probe", "paired", *TINY, "--fail-on", "nothing"), 2),
        (("probe", "determinism", *TINY, "--run-rows", "0"), 2),
        (("probe", "determinism", *TINY, "--engine", "vllm-server"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_fine_and_could_not_be_run(driftscope: Run, arguments: tuple[str, ...], code: int) -> None:
    done = driftscope(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (code == 0)


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "code"), [("abs_diff_mean>1", 0), ("abs_diff_mean>=0", 1)])
def test_a_paired_probe_finds_what_its_rules_say(driftscope: Run, rule: str, code: int) -> None:
    done = driftscope(*PAIRED, "--fail-on", rule)
    assert done.returncode == code, done.stderr


@pytest.mark.slow
def test_a_determinism_probe_finds_an_axis_that_differs(driftscope: Run) -> None:
    """transformers repeats itself; a long row beside a short one is padded, which moves bits."""
    same = driftscope(*DETERMINISM, "--axes", "run_to_run", "--run-rows", "3")
    assert same.returncode == 0, same.stderr
    lengths = ("--prompt-tokens", "24,320", "--engine-dtypes", "fp32", "--batch-sizes", "1,8")
    other = driftscope(*DETERMINISM, "--axes", "batch_size", *lengths, "--json")
    verdict = json.loads(other.stdout)["axes"][0]["verdict"]
    assert (verdict, other.returncode) == ("differs", 1), other.stderr


@pytest.mark.slow
def test_a_refuted_kernel_of_the_users_own_is_a_finding(driftscope: Run, tmp_path: Path) -> None:
    package = tmp_path / "package"
    info = package / "acme_kernels-1.0.dist-info"
    info.mkdir(parents=True)
    (package / "acme_kernels.py").write_text(KERNEL, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-kernels\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[driftscope.kernels]\nacme = acme_kernels:kernels\n")
    roots = [str(package), *(str(ROOT / root) for root in ("service", "probes", "kernels"))]
    path = os.pathsep.join(roots)
    asked = ("kernels", "check", "--target", "acme", "--quick", "--threads", "1", "--no-store")
    refuted = driftscope(*asked, "--axis", "batch_size", PYTHONPATH=path)
    assert refuted.returncode == 1, refuted.stderr
    assert "REFUTED" in refuted.stdout and "batch_size" in refuted.stdout
    holds = driftscope(*asked, "--axis", "run_to_run", PYTHONPATH=path)
    assert holds.returncode == 0, holds.stdout + holds.stderr
