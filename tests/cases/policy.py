"""Steps of a made-up policy as files, and the command that a user runs on them.

The policy has all its logits, so that a fault can be put in exactly; every seed is fixed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from typer.testing import CliRunner

from driftscope_service.cli.main import build_app

from ..probes.diagnosis.made_up_policy import MadeUpPolicy, Pair

__all__ = ["BF16", "Pair", "Printed", "analyze", "last_tokens", "pair", "push", "write"]
BF16 = {"rollout_dtype": "bf16", "trainer_dtype": "bf16"}
Values = NDArray[Any]


def pair(seed: int, sequences: int = 24, length: int = 80, dtype: str = "bf16") -> Pair:
    """A healthy pair: rounding of that dtype, about half its floor."""
    return MadeUpPolicy(seed, sequences, length, dtype=dtype).pair()


def last_tokens(of: Pair) -> NDArray[np.bool_]:
    """[tokens]"""
    found = np.zeros(of.rollout.size, np.bool_)
    found[of.limits[1:] - 1] = True
    return found


def write(
    folder: Path,
    rollout: Values,
    trainer: Values,
    limits: Values,
    metadata: Mapping[str, str] = BF16,
    **tensors: Values,
) -> Path:
    path = folder / "step.safetensors"
    named: dict[str, Values] = {
        "rollout_logprobs": np.ascontiguousarray(rollout, np.float32),
        "trainer_logprobs": np.ascontiguousarray(trainer, np.float32),
        "cu_seqlens": np.asarray(limits, np.int64),
        **{name: np.ascontiguousarray(values) for name, values in tensors.items()},
    }
    save_file(named, path, {"schema_version": "1", **metadata})
    return path


@dataclass(frozen=True)
class Printed:
    """What `driftscope analyze` says of a file: `text` without its line breaks."""

    text: str
    every: str  # with --all
    json: dict[str, Any]

    @property
    def comparison(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["comparison"]
        return found

    @property
    def odd(self) -> list[dict[str, Any]]:
        """What is wrong with the values."""
        return [one for one in self.json["hygiene"]["found"] if one["faulty"]]

    def profile(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.json["profiles"][f"by_{name}"]
        return found


def analyze(path: Path, *, every: bool = False) -> Printed:
    """Runs the command for text and JSON, with `every` for --all as well."""
    return Printed(
        text=_flat(_run(path)),
        every=_flat(_run(path, "--all")) if every else "",
        json=json.loads(_run(path, "--json")),
    )


def push(url: str, path: Path, run: str) -> tuple[dict[str, Any], str]:
    """Pushes the file as step 1 of a run: the service's answer, and the page of the step."""
    with httpx.Client(base_url=url, timeout=60.0) as client:
        step = f"/v1/runs/{run}/steps/1"
        sent = {"content-type": "application/vnd.safetensors"}
        client.post(f"{step}/logprobs", content=path.read_bytes(), headers=sent).raise_for_status()
        answer = client.post(f"{step}/complete", json={}).raise_for_status().json()
        page = client.get(f"/runs/{run}/steps/1", headers={"accept": "text/html"})
        return answer, page.raise_for_status().text


def _flat(text: str) -> str:
    return " ".join(text.split())


def _run(path: Path, *flags: str) -> str:
    """The command itself, without a process of its own, which would load everything anew."""
    done = CliRunner().invoke(
        build_app(), ["analyze", str(path), *flags], env={"COLUMNS": "100"}, catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout
