"""`driftscope fingerprint`: a simulated device, a file, and the diff of two with its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftscope_probes.errors import RequestError
from driftscope_probes.fingerprint.report import MOST_BYTES
from driftscope_service.cli.main import app_of


def fingerprint(*arguments: str | Path) -> Result:
    words = ["fingerprint", *map(str, arguments)]
    return CliRunner().invoke(app_of(words), words, env={"COLUMNS": "160"}, catch_exceptions=False)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of Volta, the device with the fewest instructions, by the real command."""
    path = tmp_path_factory.mktemp("fingerprint") / "volta.json"
    done = fingerprint("--device", "simulated:volta", "--out", path)
    assert done.exit_code == 0
    assert "of simulated:volta: 3 paths." in done.stdout
    return path


def test_what_other_programs_read(stored: Path) -> None:
    assert stored.stat().st_size < MOST_BYTES
    report = json.loads(stored.read_text(encoding="utf-8"))
    names = "op dtype path tree accumulator_bits rounding fma subnormals fraction_bits"
    for path in report["paths"]:
        assert {*names.split(), "products_before_rounding"} <= path.keys()
    assert report["paths"][0]["fraction_bits"] == 23
    assert "torch" in report["environment"]["packages"]


def test_a_device_and_itself(stored: Path) -> None:
    done = fingerprint("diff", stored, stored)
    assert (done.exit_code, done.stdout) == (0, "Both compute alike on 3 paths.\n")


def test_a_device_that_changed(stored: Path, tmp_path: Path) -> None:
    report = json.loads(stored.read_text(encoding="utf-8"))
    report["paths"][0]["fraction_bits"] = 22
    report["environment"]["variables"]["MKL_CBWR"] = "AVX"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(report, indent=1), encoding="utf-8")
    done = fingerprint("diff", stored, other)
    assert done.exit_code == 1
    assert "They differ in 1 mechanism, of 3 paths." in done.stdout
    assert "terms are aligned to 22 bits" in done.stdout
    assert "MKL_CBWR: – → AVX" in done.stdout
    told: dict[str, Any] = json.loads(fingerprint("diff", stored, other, "--json").stdout)
    assert [each["what"] for each in told["mechanisms"]] == ["bits kept when aligning"]


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"kind": "paired"}', "\0", "[" * 10**5])
def test_no_fingerprint(stored: Path, tmp_path: Path, content: str | None) -> None:
    other = tmp_path / "other.json"
    if content is not None:
        other.write_text(content, encoding="utf-8")
    with pytest.raises(RequestError, match="is not a fingerprint|cannot be read"):
        fingerprint("diff", stored, other)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(RequestError, match="no such device"):
        fingerprint("--device", "gpu")
