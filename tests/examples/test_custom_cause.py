"""The package of examples/custom_cause, installed: its cause is named, and a faulty one refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "custom_cause"
COMMAND = "from driftscope_service.cli.main import main; main()"
MARKER, BIAS, VOCABULARY, TOKENS = 7, 2.0, 32, 2048


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """What `pip install` leaves: a module, and metadata beside it; and a second, faulty entry."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]
    folder = tmp_path / "site"
    info = folder / f"acme_causes-{project['version']}.dist-info"
    info.mkdir(parents=True)
    shutil.copy(EXAMPLE / "acme_causes.py", folder)
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata)
    offered = project["entry-points"]["driftscope.causes"] | {"acme_bad": "acme_causes:MARKER"}
    lines = "".join(f"{name} = {place}\n" for name, place in offered.items())
    (info / "entry_points.txt").write_text(f"[driftscope.causes]\n{lines}")
    return folder


def log_softmax(logits: np.ndarray) -> np.ndarray:
    values: np.ndarray = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return values


def planted(file: Path) -> None:
    """The engine samples with a bias on one token's logit, the trainer scores without."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0.0, 2.0, (TOKENS, VOCABULARY))
    rounded = logits + generator.normal(0.0, 1e-6, logits.shape)
    engine, trainer = log_softmax(logits + BIAS * np.eye(VOCABULARY)[MARKER]), log_softmax(rounded)
    ids = (engine + generator.gumbel(size=engine.shape)).argmax(-1)
    tensors = {
        "rollout_logprobs": np.take_along_axis(engine, ids[:, None], 1)[:, 0].astype(np.float32),
        "trainer_logprobs": np.take_along_axis(trainer, ids[:, None], 1)[:, 0].astype(np.float32),
        "token_ids": ids.astype(np.int32),
        "cu_seqlens": np.arange(0, TOKENS + 1, 64),
    }
    save_file(tensors, file, {"rollout_dtype": "fp32", "trainer_dtype": "fp32"})


def test_its_cause_is_named_first_and_a_faulty_entry_is_refused(
    installed: Path, tmp_path: Path
) -> None:
    planted(tmp_path / "step.safetensors")
    roots = [str(installed), *(str(ROOT / root) for root in ("service", "probes", "kernels"))]
    rule = "cause==acme_logit_bias"
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "analyze", "step.safetensors", "--json", "--fail-on", rule],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr  # the gate knows its name, too
    diagnosis = json.loads(done.stdout)["diagnosis"]
    first = diagnosis["causes"][0]
    assert (first["name"], diagnosis["verdict"]) == ("acme_logit_bias", "bug_like")
    assert first["confidence"] > 0.9 and first["doc"].startswith("https://wiki.acme.example/")
    assert first["plot"]["kind"] == "points"
    refused = "no cause is taken from acme_bad = acme_causes:MARKER of acme-causes 1.0: it is of"
    assert refused in done.stderr and f"fail-on {rule}" in done.stderr
