"""Where pushed data lies, and what a start removes."""

from __future__ import annotations

from pathlib import Path

from driftscope_service.runs.store.uploads import StepFiles
from driftscope_service.store.storage.local import LocalStorage


def test_an_accepted_part_has_a_name_of_its_own(tmp_path: Path) -> None:
    files = StepFiles(tmp_path, LocalStorage(tmp_path))
    names = []
    for content in (b"a", b"b"):
        part = files.new_part()
        part.write_bytes(content)
        names.append(files.accept(part))
        assert not part.exists()
    assert [files.path(name).read_bytes() for name in names] == [b"a", b"b"]
    files.remove([names[0], "gone.raw"])
    assert [path.name for path in (tmp_path / "steps").iterdir()] == [names[1]]


def test_a_start_removes_what_was_half_received_and_nothing_else(tmp_path: Path) -> None:
    files = StepFiles(tmp_path, LocalStorage(tmp_path))
    files.sweep_incoming()  # there is no folder yet
    for part in (files.new_part(), files.new_tokens_part()):
        part.write_bytes(b"half")
        part.with_name(f"{part.name}.partial").write_bytes(b"half")
    (tmp_path / "incoming" / "lost+found").mkdir()
    (tmp_path / "incoming" / "notes.txt").write_text("mine")
    files.sweep_incoming()
    assert {path.name for path in (tmp_path / "incoming").iterdir()} == {"lost+found", "notes.txt"}
