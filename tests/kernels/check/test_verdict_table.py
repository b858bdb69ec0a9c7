"""The committed table of verdicts names every kernel that the checker knows."""

from __future__ import annotations

import re
from pathlib import Path

from driftscope_kernels.check.static.static_kernels import static_kernels
from driftscope_kernels.registry import kernels
from driftscope_kernels.targets import torch_ops, vllm_ops

TABLE = Path(__file__).parents[3] / "docs" / "kernel-verdicts.md"
TARGETS = ("driftscope", torch_ops.TARGET, vllm_ops.TARGET)
REFRESH = "run `driftscope kernels check --threads 1,2 --quick --markdown docs/kernel-verdicts.md`"


def test_every_kernel_of_the_registry_stands_in_the_table() -> None:
    text = TABLE.read_text(encoding="utf-8")
    listed = {tuple(found) for found in re.findall(r"^\| (\S+) \| `(\S+?)` \|", text, re.MULTILINE)}
    names = [k.name for k in kernels() if k.target in TARGETS]
    names += [k.name for k in static_kernels()]
    wanted = {(op, f"{target}/{name}") for target, op, name in (n.split("/") for n in names)}
    assert wanted == listed, REFRESH


def test_every_kernel_that_may_use_threads_was_checked_with_one_and_two() -> None:
    text = TABLE.read_text(encoding="utf-8")
    row = re.compile(r"^\| (\S+) \| `(\S+?)` \| ([^|]+) \|", re.MULTILINE)
    listed = {(op, name): threads for op, name, threads in row.findall(text)}
    for kernel in (kernel for kernel in kernels() if kernel.target in TARGETS):
        threads = listed[kernel.op, f"{kernel.target}/{kernel.implementation}"]
        assert threads == ("1, 2" if kernel.threaded else "1"), f"{kernel.name}: {REFRESH}"


def test_ours_are_refuted_nowhere_and_no_planted_fault_was_missed() -> None:
    text = TABLE.read_text(encoding="utf-8")
    ours = re.findall(r"^\| \S+ \| `(?:driftscope|triton)/.*$", text, re.MULTILINE)
    assert ours
    assert not [line for line in ours if "REFUTED:" in line or "INCONCLUSIVE" in line]
    assert re.search(r"^- planted faults caught: (\d+) of \1$", text, re.MULTILINE)


def test_it_says_when_where_and_how_it_was_made() -> None:
    text = TABLE.read_text(encoding="utf-8")
    for line in ("- command: `driftscope kernels check", "- date: 20", "- CPU: ", "torch 2."):
        assert line in text
    assert re.search(r"--seed \d", text)
