from pathlib import Path

import pytest

from driftscope_probes.models import cache

RECIPE = "model/1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "weights").write_bytes(b"12345")
    cache.write(tmp_path, RECIPE)
    return tmp_path


def test_intact(folder: Path) -> None:
    made = cache.read_intact(folder, RECIPE)
    assert made is not None
    assert set(made.files) == {"config.json", "weights"}
    size, sha256 = made.files["weights"]
    assert size == 5
    assert sha256 == "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"


def test_other_recipe(folder: Path) -> None:
    assert cache.read_intact(folder, "model/2") is None


def test_missing_file(folder: Path) -> None:
    (folder / "weights").unlink()
    assert cache.read_intact(folder, RECIPE) is None


def test_other_size(folder: Path) -> None:
    (folder / "weights").write_bytes(b"1234")
    assert cache.read_intact(folder, RECIPE) is None


def test_no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    assert cache.read_intact(folder, RECIPE) is None
    assert cache.read_intact(folder / "absent", RECIPE) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"recipe": "model/1", "files": {}}',
        '{"recipe": "model/1", "files": []}',
        '{"recipe": "model/1", "files": {"weights": 3}}',
        '{"recipe": "model/1", "files": {"weights": {"size": 5}}}',
        '{"recipe": "model/1", "files": {"weights": {"size": null, "sha256": "0"}}}',
    ],
)
def test_damaged_manifest(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    assert cache.read_intact(folder, RECIPE) is None


def test_fingerprint_follows_the_content_alone(folder: Path, tmp_path: Path) -> None:
    first = cache.write(folder, RECIPE).fingerprint
    other = tmp_path / "other"
    other.mkdir()
    (other / "weights").write_bytes(b"12345")
    (other / "config.json").write_text("{}")
    assert cache.write(other, RECIPE).fingerprint == first
    (other / "weights").write_bytes(b"12346")
    assert cache.write(other, RECIPE).fingerprint != first
