"""verl's own functions, taken from its wheel without what the wheel imports.

In: a folder to download to. Out: the modules as verl ships them. Only declarations that carry no
numbers are replaced (DataProto, two configuration classes); the masked sums are the wheel's own
source, compiled function by function.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import types
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERL = "verl==0.9.1"
UNREACHABLE = ("No matching distribution found", "Connection", "Temporary failure", "timed out")
MASKED = ("masked_sum", "masked_mean")


class VerlUnreachable(Exception):
    """No package registry could be asked for the wheel."""


@dataclass(frozen=True, slots=True)
class Verl:
    """Modules of the wheel, as verl ships them."""

    rollout_corr: Any  # verl/trainer/ppo/rollout_corr_helper.py
    debug: Any  # verl/utils/debug/metrics.py
    algorithm: Any  # verl/trainer/config/algorithm.py


def download_wheel(folder: Path) -> Path:
    """The wheel's path; VerlUnreachable where the package registry does not answer."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", VERL, "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and any(reason in done.stderr for reason in UNREACHABLE):
        raise VerlUnreachable(
            f"the package registry does not give {VERL}: {done.stderr.strip()[-200:]}"
        )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def load(wheel_path: Path) -> Verl:
    """Leaves modules named verl.… in sys.modules, which a caller may take out again."""
    import torch

    with zipfile.ZipFile(wheel_path) as wheel:
        sources = {name: wheel.read(name).decode() for name in wheel.namelist() if ".py" in name}
    _module("verl")
    for package in ("verl.trainer", "verl.trainer.config", "verl.utils", "verl.workers"):
        _module(package)
    _module("verl.protocol").DataProto = types.SimpleNamespace(
        from_dict=lambda tensors: types.SimpleNamespace(batch=tensors)
    )
    _module("verl.workers.config")
    _module("verl.workers.config.actor").PolicyLossConfig = object
    _module("verl.base_config").BaseConfig = object
    functional = _module("verl.utils.torch_functional")
    functional.torch = torch
    tree = ast.parse(sources["verl/utils/torch_functional.py"])
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in MASKED]
    assert len(tree.body) == len(MASKED)
    exec(compile(tree, "torch_functional.py", "exec"), vars(functional))
    sys.modules["verl.utils"].torch_functional = functional  # type: ignore[attr-defined]
    algorithm = _from_source("verl.trainer.config.algorithm", sources)
    return Verl(
        rollout_corr=_from_source("verl.trainer.ppo.rollout_corr_helper", sources),
        debug=_from_source("verl.utils.debug.metrics", sources),
        algorithm=algorithm,
    )


def _module(name: str) -> Any:
    sys.modules[name] = types.ModuleType(name)
    return sys.modules[name]


def _from_source(name: str, sources: dict[str, str]) -> Any:
    module = _module(name)
    path = name.replace(".", "/") + ".py"
    module.__file__ = path
    exec(compile(sources[path], path, "exec"), vars(module))
    return module
