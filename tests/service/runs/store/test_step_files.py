"""Where pushed data lies, and what a start removes."""

from __future__ import annotations

from pathlib import Path

from driftscope_service.runs.store.uploads import StepFiles


def test_an_accepted_part_has_a_name_of_its_own(tmp_path: Path) -> None:
    files = StepFiles(tmp_path)
    names = []
    for content in (b"a", b"b"):
        part = files.new_part()
        part.write_bytes(content)
        names.append(files.accept(part))
        assert not part.exists()
    assert [files.path(name).read_bytes() for name in names] == [b"a", b"b"]
    files.remove([names[0], "gone.raw"])
    assert [path.name for path in (tmp_path / "steps").iterdir()] == [names[1]]


def test_a_sweep_leaves_what_a_row_names(tmp_path: Path) -> None:
    files = StepFiles(tmp_path)
    files.sweep([])  # there are no folders yet
    part = files.new_part()
    part.write_bytes(b"kept")
    kept = files.accept(part)
    files.new_part().write_bytes(b"half")
    files.path("unnamed.parquet").write_bytes(b"")
    files.path("half.parquet.partial").write_bytes(b"")
    files.sweep([kept, "gone.raw"])
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [kept]
