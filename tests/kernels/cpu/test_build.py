"""Building at first use: kept, shared, and clear about what is wrong."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from driftscope_kernels.cpu import build

SOURCE = 'extern "C" int answer() { return 42; }\n'


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources with a space"
    folder.mkdir()
    (folder / "answer.cpp").write_text(SOURCE)
    return folder


def test_a_build_is_kept_until_a_source_changes(sources: Path, tmp_path: Path) -> None:
    first = build.built(sources, tmp_path / "kept here")
    made = first.path.stat().st_mtime_ns
    assert build.built(sources, tmp_path / "kept here") == first
    assert first.path.stat().st_mtime_ns == made
    assert first.seconds > 0
    (sources / "answer.h").write_text("// new\n")
    assert build.built(sources, tmp_path / "kept here").path != first.path


def test_the_compiler_is_part_of_the_key(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build.built(sources, tmp_path)
    other = tmp_path / "other compiler"
    other.write_text('#!/bin/sh\n[ "$1" = --version ] && echo other && exit\nexec c++ "$@"\n')
    other.chmod(0o755)
    monkeypatch.setenv("CXX", str(other))
    assert build.built(sources, tmp_path).path != first.path


def test_two_at_once_build_once(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Path] = []
    run_ninja = build._run_ninja

    def counted(place: Path) -> None:
        runs.append(place)
        run_ninja(place)

    monkeypatch.setattr(build, "_run_ninja", counted)
    workers = [threading.Thread(target=build.built, args=(sources, tmp_path)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(runs) == 1


def test_a_broken_source_names_the_log(sources: Path, tmp_path: Path) -> None:
    (sources / "broken.cpp").write_text("int f() { return missing_name; }\n")
    with pytest.raises(build.BuildError) as refused:
        build.built(sources, tmp_path)
    log = next(tmp_path.glob(f"*/{build.LOG}"))
    assert str(log) in str(refused.value)
    assert "missing_name" in str(refused.value)
    assert "missing_name" in log.read_text()
    assert not list(tmp_path.glob(f"*/{build.RECORD}"))
    (sources / "broken.cpp").write_text("int f() { return 1; }\n")
    assert build.built(sources, tmp_path).path.is_file()


def test_a_build_that_broke_off_is_taken_up_again(sources: Path, tmp_path: Path) -> None:
    built = build.built(sources, tmp_path)
    (built.path.parent / build.RECORD).unlink()
    built.path.write_bytes(b"half a library")
    assert build.built(sources, tmp_path).path.stat().st_size > 100


def test_no_compiler_is_said_with_what_to_install(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.ToolchainMissingError, match=r"no-such-compiler.*[Ii]nstall g\+\+"):
        build.built(sources, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(build.BuildError, match="DRIFTSCOPE_HOME"):
        build.built(sources, tmp_path / "file" / "kernels")


def test_what_is_no_library_is_refused_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_text("not a library")
    with pytest.raises(build.BuildError, match="Delete the folder"):
        build.load(tmp_path / "lib.so")


def test_the_record_holds_the_seconds_of_the_build(sources: Path, tmp_path: Path) -> None:
    built = build.built(sources, tmp_path)
    assert json.loads((built.path.parent / build.RECORD).read_text())["seconds"] == built.seconds


def test_the_cache_is_under_the_home_of_driftscope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(build.HOME_VARIABLE, str(tmp_path))
    assert build.cache_folder() == tmp_path / "kernels"
    monkeypatch.delenv(build.HOME_VARIABLE)
    assert build.cache_folder() == Path.home() / ".cache" / "driftscope" / "kernels"
