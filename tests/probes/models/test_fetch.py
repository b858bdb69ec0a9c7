"""Whole fetches of catalogue models: cached, killed at every stage, and by several processes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from driftscope_probes.errors import ModelError
from driftscope_probes.models import catalogue
from driftscope_probes.models.fetch import fetch

STAGES = ["writing the tokenizer", "drawing the weights", "checking and storing", "done"]

FETCH = Path(__file__).parent / "children" / "fetch_model.py"
KILLED_AT = """
import os, signal, sys
from driftscope_probes.models.fetch import fetch

def progress(step):
    if step.stage == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

fetch("tiny-random-llama", progress=progress)
"""

WITHOUT_TORCH = """
import sys
from driftscope_probes.models.fetch import resolve

resolve("tiny-random-llama")
assert not {"torch", "transformers", "vllm"} & set(sys.modules)
"""


def test_progress_rises_from_stage_to_stage(own_home: Path) -> None:
    seen: list[tuple[str, float]] = []
    fetch("tiny-random-llama", progress=lambda p: seen.append((p.stage, p.fraction)))
    assert [stage for stage, _ in seen] == STAGES
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] and fractions[-1] == 1


def test_the_second_fetch_finds_the_first(own_home: Path) -> None:
    first = fetch("tiny-random-moe")
    weights = first.path / "model.safetensors"
    made = weights.stat().st_mtime_ns
    assert fetch("tiny-random-moe") == first
    assert weights.stat().st_mtime_ns == made
    assert fetch("tiny-random-moe", force=True) == first, "the same bytes, hence the same print"
    assert weights.stat().st_mtime_ns > made


def test_what_is_fetched(own_home: Path) -> None:
    model = fetch("tiny-random-moe")
    assert model.path == own_home / "models" / "tiny-random-moe"
    assert model.origin == "catalogue"
    assert model.architecture == "Qwen3MoeForCausalLM"
    assert model.revision == "tiny-random-moe/bf16/1"
    assert model.fingerprint.startswith("sha256:")


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_a_stage(own_home: Path, child_environment: dict[str, str], stage: str) -> None:
    command = [sys.executable, "-c", KILLED_AT, stage]
    assert subprocess.run(command, env=child_environment).returncode == -signal.SIGKILL
    model = catalogue.find("tiny-random-llama")
    assert model is not None
    assert model.cached == (stage == "done")
    assert model.folder.exists() == (stage == "done")
    assert fetch("tiny-random-llama").parameters == 836_736
    left = {path.name for path in (own_home / "models").iterdir()}
    assert left == {"tiny-random-llama", ".tiny-random-llama.lock"}


def test_many_at_once_build_once(own_home: Path, child_environment: dict[str, str]) -> None:
    command = [sys.executable, str(FETCH), "tiny-random-llama"]
    children = [
        subprocess.Popen(command, env=child_environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outputs = [
        [json.loads(line) for line in child.communicate()[0].splitlines()] for child in children
    ]
    assert [child.returncode for child in children] == [0] * 4
    assert len({lines[-1]["model"]["fingerprint"] for lines in outputs}) == 1
    built = [any(line.get("stage") == STAGES[1] for line in lines) for lines in outputs]
    assert built.count(True) == 1


def test_torch_stays_outside(child_environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], env=child_environment, check=True)


@pytest.mark.parametrize("name", ["no-such-model", "", "../../etc", "a b/c", "x" * 5000, "a\0b"])
def test_unknown(own_home: Path, name: str) -> None:
    with pytest.raises(ModelError, match="There is no model called"):
        fetch(name)
    assert not own_home.exists()


def test_a_hub_id_has_no_master_dtype() -> None:
    with pytest.raises(ModelError, match="catalogue models only"):
        fetch("organisation/model", master_dtype="fp32")
