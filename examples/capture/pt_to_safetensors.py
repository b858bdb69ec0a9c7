"""Your own dump of SGLang's dumper or of msprobe, from pickle to safetensors.

    python pt_to_safetensors.py DUMP OUT [RANK]

DUMP is the folder with the `.pt` files. Only tensors are unpickled (`weights_only`).
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

import torch
from safetensors.torch import save_file

SGLANG = re.compile(r"step=(\d+)___rank=(\d+)___dump_index=\d+___name=(.+?)___recompute_status=.*")
MSPROBE = re.compile(r"Module\.(.+)\.[^.]+\.forward\.(\d+)\.(input|output|parameters)\.(\w+)")


def named(path: Path, rank: str) -> tuple[int, str] | None:
    """Forward pass and name of a tensor; None for what is not converted."""
    if found := SGLANG.fullmatch(path.stem):
        name = found[3].removeprefix("non_intrusive__")
        return (int(found[1]), name) if found[2] == rank else None
    if found := MSPROBE.fullmatch(path.stem):
        module, step, part, end = found.groups()
        if part == "parameters":
            return int(step), f"weights.{module}.{end}"
        return int(step), f"{module}.{'inputs' if part == 'input' else part}.{end}"
    return None


def main(dump: str, out: str, rank: str = "0") -> None:
    steps: dict[int, dict[str, torch.Tensor]] = defaultdict(dict)
    for path in sorted(Path(dump).rglob("*.pt")):
        if found := named(path, rank):
            value = torch.load(path, map_location="cpu", weights_only=True)
            value = value["value"] if isinstance(value, dict) else value
            if isinstance(value, torch.Tensor):
                steps[found[0]][found[1]] = value.detach().clone().contiguous()
    Path(out).mkdir(parents=True)
    for step, tensors in steps.items():
        save_file(tensors, Path(out) / f"{step:06}.safetensors")
    print(f"{sum(map(len, steps.values()))} tensors of {len(steps)} forward passes")


if __name__ == "__main__":
    main(*sys.argv[1:])
