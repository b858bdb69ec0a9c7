"""Vendored browser code is what its checksums say, and a change of it would be noticed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

import driftscope_service

VENDOR = Path(driftscope_service.__file__).parent / "pages" / "static" / "vendor"
SCRIPT = Path(__file__).parents[4] / "scripts" / "vendor_assets.sh"
BUNDLE = "echarts/echarts.min.js"


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", SCRIPT, "--verify", folder], capture_output=True, text=True, check=False
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(VENDOR, tmp_path / "vendor"))


def test_every_file_has_its_checksum() -> None:
    lines = (VENDOR / "CHECKSUMS").read_text(encoding="ascii").splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    present = {
        str(path.relative_to(VENDOR)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "CHECKSUMS"
    }
    assert listed == present
    assert BUNDLE in listed


def test_licences_travel_with_the_code() -> None:
    assert "Apache License" in (VENDOR / "echarts" / "LICENSE").read_text(encoding="utf-8")
    assert "Apache ECharts" in (VENDOR / "echarts" / "NOTICE").read_text(encoding="utf-8")


def test_the_script_accepts_what_is_vendored(copied: Path) -> None:
    assert verify(VENDOR).returncode == 0
    assert verify(copied).returncode == 0


def test_a_tampered_file_is_caught(copied: Path) -> None:
    bundle = copied / BUNDLE
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.write_bytes(content)
    done = verify(copied)
    assert done.returncode == 1
    assert "differs from its checksum" in done.stderr and "What to do" in done.stderr


@pytest.mark.parametrize("act", ["added", "removed"])
def test_a_file_too_many_or_too_few_is_caught(copied: Path, act: str) -> None:
    if act == "added":
        (copied / "echarts" / "extra.js").write_text("alert(1)", encoding="utf-8")
    else:
        (copied / BUNDLE).unlink()
    done = verify(copied)
    assert done.returncode == 1
    assert "are not those named in" in done.stderr


def test_the_bundle_can_stand_inside_a_script_element() -> None:
    code = (VENDOR / BUNDLE).read_text(encoding="utf-8").lower()
    assert "</script" not in code and "<!--" not in code


def test_the_script_names_no_host() -> None:
    assert "://" not in SCRIPT.read_text(encoding="utf-8")
