from __future__ import annotations

import copy
import sys
from typing import Any

import pytest

from driftscope_probes.device import environment as environment_change
from driftscope_probes.device.environment import (
    compare_environments,
    environment,
    key_of,
    night_environment,
)

NIGHT: dict[str, Any] = {
    "python": "3.11.0",
    "platform": "Linux-6.1",
    "packages": {"torch": "2.13.0", "vllm": "0.32.0", "driftscope": "0.1.0"},
    "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gib": 7.5, "gpu_driver": "580.1"},
    "variables": {"OMP_NUM_THREADS": "2"},
    "libraries": {"oneDNN": "v3.12.0"},
    "kernel_packages": {"acme": "1.0"},
    "commit": "abc",
}


@pytest.mark.parametrize(
    ("part", "name", "value", "kind", "shown"),
    [
        ("packages", "torch", "2.14.0", "version", "torch"),
        ("packages", "vllm", None, "version", "vllm"),
        ("packages", "flash-attn", "3.0", "version", "flash-attn"),
        ("packages", "driftscope", "0.2.0", "own", "driftscope"),
        ("libraries", "oneDNN", "v3.13.0", "version", "oneDNN"),
        ("kernel_packages", "acme", "1.1", "version", "acme"),
        ("hardware", "cpu", "Another CPU", "hardware", "cpu"),
        ("hardware", "gpu_driver", "590.2", "version", "GPU driver"),
        ("variables", "OMP_NUM_THREADS", "1", "variable", "OMP_NUM_THREADS"),
        (None, "commit", "def", "own", "driftscope commit"),
        (None, "python", "3.12.0", "version", "python"),
        (None, "platform", "Linux-6.2", "platform", "platform"),
    ],
)
def test_every_part_is_compared_and_named(
    part: str | None, name: str, value: str | None, kind: str, shown: str
) -> None:
    after = copy.deepcopy(NIGHT)
    fields = after if part is None else after[part]
    before = fields.get(name)
    fields[name] = value
    if value is None:
        del fields[name]
    (change,) = compare_environments(NIGHT, after)
    assert change.to_dict() == {"kind": kind, "name": shown, "before": before, "after": value}
    assert (key_of(after) != key_of(NIGHT)) == (kind in ("hardware", "version"))


def test_memory_is_no_change() -> None:
    after = copy.deepcopy(NIGHT)
    after["hardware"]["memory_gib"] = 7.6
    assert compare_environments(NIGHT, after) == ()


def test_a_checkout_tells_its_commit_and_a_folder_without_git_none() -> None:
    found, notes = night_environment()
    assert notes == ()
    assert compare_environments(found, night_environment()[0]) == ()
    assert found["packages"] == environment()["packages"]
    if "torch" in found["packages"]:
        assert found["libraries"]["compiler of torch"]
        torch = pytest.importorskip("torch")
        if torch.backends.mkldnn.is_available():
            assert found["libraries"]["oneDNN"].startswith("v")
        assert "torch" not in sys.modules or torch is sys.modules["torch"]


def test_a_torch_that_cannot_be_imported_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_change, "LIBRARIES_MODULE", "no_such_module")
    monkeypatch.setattr(
        environment_change,
        "environment",
        lambda: {**environment(), "packages": {"torch": "2.13.0"}},
    )
    found, notes = night_environment()
    assert found["libraries"] == {}
    assert "no_such_module" in notes[0]
