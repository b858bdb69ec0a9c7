"""A build is whole or not there: after exceptions, kill -9 and races between processes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from driftscope_probes.errors import ModelError
from driftscope_probes.models.cache import Manifest, build_once
from driftscope_probes.progress import Progress, ProgressSink, discard

RECIPE = "thing/1"

# Fills half a file, says so, and waits for `go` (or for its death).
SLOW_BUILD = """
import sys, time
from pathlib import Path
from driftscope_probes.models.cache import build_once
from driftscope_probes.progress import discard

target, signs = Path(sys.argv[1]), Path(sys.argv[2])

def build(folder, progress):
    (folder / "weights").write_bytes(b"child")
    (signs / "half").touch()
    while not (signs / "go").exists():
        time.sleep(0.01)

build_once(target, "thing/1", build, force=False, progress=discard)
"""


class Counted:
    """A build that counts how often it ran."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, folder: Path, progress: ProgressSink) -> None:
        self.times += 1
        (folder / "weights").write_bytes(b"parent")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "thing"


def once(target: Path, build: Counted, *, force: bool = False, recipe: str = RECIPE) -> Manifest:
    return build_once(target, recipe, build, force=force, progress=discard)


def start_slow_build(
    target: Path, signs: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SLOW_BUILD, str(target), str(signs)]
    child = subprocess.Popen(command, env=environment)
    while not (signs / "half").exists():
        assert child.poll() is None, "the child ended before it had built half"
        time.sleep(0.01)
    return child


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_built_once_then_found(target: Path) -> None:
    build = Counted()
    assert once(target, build) == once(target, build)
    assert build.times == 1
    assert visible(target) == {"weights", "manifest.json"}
    assert visible(target.parent) == {"thing"}


def test_force_recipe_and_damage_build_again(target: Path) -> None:
    build = Counted()
    once(target, build)
    once(target, build, force=True)
    assert build.times == 2
    once(target, build, recipe="thing/2")
    assert build.times == 3
    (target / "weights").write_bytes(b"par")
    once(target, build, recipe="thing/2")
    assert build.times == 4
    assert (target / "weights").read_bytes() == b"parent"
    assert visible(target.parent) == {"thing"}


def test_a_build_that_fails_leaves_nothing(target: Path) -> None:
    def failing(folder: Path, progress: ProgressSink) -> None:
        (folder / "weights").write_bytes(b"half")
        raise ModelError("No.", remedy="None.")

    with pytest.raises(ModelError, match="No."):
        build_once(target, RECIPE, failing, force=False, progress=discard)
    assert visible(target.parent) == set()


def test_a_failed_rebuild_keeps_the_old_one(target: Path) -> None:
    def failing(folder: Path, progress: ProgressSink) -> None:
        raise ModelError("No.", remedy="None.")

    build = Counted()
    before = once(target, build)
    with pytest.raises(ModelError):
        build_once(target, RECIPE, failing, force=True, progress=discard)
    assert once(target, build) == before
    assert build.times == 1


def test_killed_in_mid_build(
    target: Path, tmp_path: Path, child_environment: dict[str, str]
) -> None:
    child = start_slow_build(target, tmp_path, child_environment)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert not target.exists()
    assert len(visible(target.parent)) == 1, "the half-built folder is still there"
    once(target, Counted())
    assert visible(target.parent) == {"thing"}
    assert (target / "weights").read_bytes() == b"parent"


def test_the_second_process_waits_for_the_first(
    target: Path, tmp_path: Path, child_environment: dict[str, str]
) -> None:
    child = start_slow_build(target, tmp_path, child_environment)
    stages: list[str] = []

    def let_the_child_finish(progress: Progress) -> None:
        stages.append(progress.stage)
        (tmp_path / "go").touch()

    build = Counted()
    build_once(target, RECIPE, build, force=False, progress=let_the_child_finish)
    assert child.wait() == 0
    assert build.times == 0
    assert stages == ["waiting for another process that builds the same model"]
    assert (target / "weights").read_bytes() == b"child"


def test_leftovers_of_other_models_are_left_alone(target: Path) -> None:
    others = [".thing-fp32.building-1", ".thing-fp32.replaced-1"]
    own = [".thing.building-1", ".thing.replaced-1"]
    for name in others + own:
        (target.parent / name).mkdir(parents=True)
    once(target, Counted())
    assert visible(target.parent) == {"thing", *others}


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where a folder should be")
    with pytest.raises(ModelError, match="could not be stored") as caught:
        once(tmp_path / "models" / "thing", Counted())
    assert "DRIFTSCOPE_HOME" in caught.value.remedy
