import shutil
from pathlib import Path

import pytest

from driftscope_probes.models.folder import BLOCK_BYTES, BLOCKS, sampled_fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "weights").write_bytes(bytes(range(256)) * (BLOCKS * BLOCK_BYTES // 128))
    return made


def fingerprint(folder: Path) -> str:
    return sampled_fingerprint(folder, (folder / "weights",))


def change_byte(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_same_content_elsewhere(folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copied / "weights").touch()
    assert fingerprint(copied) == fingerprint(folder)


@pytest.mark.parametrize("position", [0, -1])
def test_ends_of_the_weights_count(folder: Path, position: int) -> None:
    before = fingerprint(folder)
    change_byte(folder / "weights", position)
    assert fingerprint(folder) != before


def test_a_change_of_every_weight_is_seen(folder: Path) -> None:
    before = fingerprint(folder)
    (folder / "weights").write_bytes(bytes(255 - b for b in (folder / "weights").read_bytes()))
    assert fingerprint(folder) != before


def test_small_files_count_whole(folder: Path) -> None:
    before = fingerprint(folder)
    (folder / "config.json").write_text("[]")
    assert fingerprint(folder) != before


def test_length_and_name_count(folder: Path) -> None:
    before = fingerprint(folder)
    (folder / "chat_template.jinja").write_text("")
    with_template = fingerprint(folder)
    assert with_template != before
    (folder / "chat_template.jinja").rename(folder / "other.jinja")
    assert fingerprint(folder) != with_template
