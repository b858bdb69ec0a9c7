"""The committed table of verdicts names every kernel that the checker knows."""

from __future__ import annotations

import re
from pathlib import Path

from driftscope_kernels.check.static_kernels import static_kernels
from driftscope_kernels.registry import kernels
from driftscope_kernels.targets import torch_ops, vllm_ops

TABLE = Path(__file__).parents[3] / "docs" / "kernel-verdicts.md"
TARGETS = ("driftscope", torch_ops.TARGET, vllm_ops.TARGET)
REFRESH = "run `driftscope kernels check --quick --markdown docs/kernel-verdicts.md`"


def test_every_kernel_of_the_registry_stands_in_the_table() -> None:
    text = TABLE.read_text(encoding="utf-8")
    listed = {tuple(found) for found in re.findall(r"^\| (\S+) \| `(\S+?)` \|", text, re.MULTILINE)}
    names = [k.name for k in kernels() if k.target in TARGETS]
    names += [k.name for k in static_kernels()]
    wanted = {(op, f"{target}/{name}") for target, op, name in (n.split("/") for n in names)}
    assert not wanted - listed, REFRESH


def test_it_says_when_where_and_how_it_was_made() -> None:
    text = TABLE.read_text(encoding="utf-8")
    for line in ("- command: `driftscope kernels check", "- date: 20", "- CPU: ", "torch 2."):
        assert line in text
    assert re.search(r"--seed \d", text)
