"""driftscope-client as others install it: what its wheel holds, needs and runs on."""

from __future__ import annotations

import os
import re
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from subprocess import run

import httpx
import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from mypy import api as mypy

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "service" / "driftscope_client"
CLIENT = tomllib.loads((FOLDER / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SERVICE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (FOLDER / "README.md").read_text(encoding="utf-8")
#: What a training image gets; the wheel of numpy alone is hundreds of times as much.
LARGEST_WHEEL_BYTES = 80_000
#: A reader types no more than this from an empty environment to a pushed step.
MOST_LINES = 15
PLUGINS = "vllm.general_plugins"


def built(folder: Path, out: Path, version: str = "standard") -> zipfile.ZipFile:
    (wheel,) = WheelBuilder(str(folder)).build(directory=str(out), versions=[version])
    return zipfile.ZipFile(wheel)


def metadata_of(wheel: zipfile.ZipFile) -> Message:
    (name,) = (one for one in wheel.namelist() if one.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


def sources() -> set[str]:
    found = (path.relative_to(FOLDER.parent) for path in FOLDER.rglob("*.py"))
    return {str(path) for path in found} | {f"{FOLDER.name}/py.typed"}


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_it_has_the_version_of_driftscope_which_asks_for_exactly_that() -> None:
    assert CLIENT["version"] == SERVICE["version"]
    asked = [one for one in SERVICE["dependencies"] if one.startswith("driftscope")]
    assert asked == [f"driftscope-client=={CLIENT['version']}"]


def test_the_wheel_is_small_and_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    with built(FOLDER, tmp_path) as wheel:
        held = wheel.namelist()
        assert {name for name in held if ".dist-info/" not in name} == sources()
        metadata = metadata_of(wheel)
    assert Path(str(wheel.filename)).stat().st_size <= LARGEST_WHEEL_BYTES
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)
    assert not any(name.endswith("entry_points.txt") for name in held), "vLLM would load a plugin"
    assert metadata.get_payload() == README
    needed = {re.split(r"[<>=!~ ]", one)[0] for one in metadata.get_all("Requires-Dist", [])}
    assert needed == {"httpx", "numpy", "safetensors"}
    assert metadata["Requires-Python"] == ">=3.10"


def test_the_sdist_makes_the_same_wheel(tmp_path: Path) -> None:
    (sdist,) = SdistBuilder(str(FOLDER)).build(directory=str(tmp_path))
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path, filter="data")
    unpacked = tmp_path / Path(sdist).name.removesuffix(".tar.gz")
    with (
        built(FOLDER, tmp_path / "a") as direct,
        built(unpacked, tmp_path / "b") as through_sdist,
    ):
        assert direct.namelist() == through_sdist.namelist()


def test_an_editable_install_finds_the_folder_under_its_name(tmp_path: Path) -> None:
    with built(FOLDER, tmp_path, "editable") as wheel:
        (link,) = (name for name in wheel.namelist() if name.endswith(".pth"))
        assert Path(wheel.read(link).decode().strip()).resolve() == FOLDER.parent


def test_the_wheel_of_driftscope_leaves_the_client_to_it() -> None:
    files = WheelBuilder(str(ROOT)).recurse_included_files()
    packages = {str(file.distribution_path).partition("/")[0] for file in files}
    assert packages == {"driftscope_service", "driftscope_probes", "driftscope_kernels"}
    assert PLUGINS in SERVICE["entry-points"]
    assert "entry-points" not in CLIENT


#: One line that installs or packs the root of the checkout.
OF_THE_ROOT = re.compile(r"pip\S* (?:install|wheel) .*?(?<=[ '\"])\.(?:\[|['\"]|\s|$).*")


def without_the_client(text: str) -> list[str]:
    """An index may know another package of its name, or none."""
    joined = text.replace("\\\n", " ")
    commands = (found[0] for found in OF_THE_ROOT.finditer(joined))
    return [one for one in commands if not re.search(r"driftscope_client|\$CLIENT", one)]


def test_who_installs_driftscope_installs_the_client_of_the_same_checkout() -> None:
    places = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "deploy").rglob("*.*"),
        *(ROOT / "service/docker").iterdir(),
        ROOT / "scripts/setup.sh",
    ]
    texts = [place.read_text(encoding="utf-8") for place in places if place.is_file()]
    assert sum(len(OF_THE_ROOT.findall(text.replace("\\\n", " "))) for text in texts) >= 8
    assert [line for text in texts for line in without_the_client(text)] == []


@pytest.mark.parametrize(
    "line",
    [
        "bin/pip install '.[vllm]'",
        "pip install --no-deps -e .",
        "pip wheel -w w \\\n  .\n",
    ],
)
def test_a_planted_install_without_the_client_is_found(line: str) -> None:
    assert without_the_client(f"first\n{line}\nlast .\n")


def test_the_licence_is_that_of_the_project() -> None:
    assert (FOLDER / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


#: Of what others wrote, nothing is read: their stubs are for newer Pythons, and large.
MYPY_SETTINGS = """
[mypy]
python_version = 3.10
follow_imports = skip
disable_error_code = import-untyped
# What a trainer brings by itself.
[mypy-megatron.*]
ignore_missing_imports = True
[mypy-numpy.*]
follow_imports = skip
follow_imports_for_stubs = True
"""
#: Of Python 3.11; each line is found, so that finding none in the client says something.
NEWER = "from typing import Self\nfrom datetime import UTC\nimport tomllib\n"


def test_the_sources_are_for_python_3_10(tmp_path: Path) -> None:
    settings, planted = tmp_path / "mypy.ini", tmp_path / "planted.py"
    settings.write_text(MYPY_SETTINGS)
    planted.write_text(NEWER)
    options = [f"--config-file={settings}", f"--cache-dir={tmp_path}", "--explicit-package-bases"]
    told, error, _ = mypy.run([*options, "--no-pretty", str(FOLDER), str(planted)])
    assert not error
    found = [line.partition(": error:")[0] for line in told.splitlines() if ": error:" in line]
    assert found == [f"{planted}:{line}" for line in (1, 2, 3)], told


@pytest.mark.slow
def test_a_first_step_from_an_empty_environment_with_numpy_1(
    tmp_path: Path, running_service: str
) -> None:
    """The lines of the README, as they are."""
    commands, script = block("sh"), block("python")
    assert len(f"{commands}{script}".replace("\n\n", "\n").splitlines()) <= MOST_LINES
    (tmp_path / "service").symlink_to(ROOT / "service")
    (tmp_path / "first_push.py").write_text(script)
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Without byte code, which takes as long as all the rest and is not looked at.
    environment = {**plain, "DRIFTSCOPE_URL": running_service, "PIP_COMPILE": "0"}
    done = run(
        ["sh", "-e", "-c", commands],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("Rounding alone explains the difference.")
    kept = httpx.get(f"{running_service}/v1/runs/first-push/steps").raise_for_status().json()
    assert kept["diagnosis"]["verdict"] == "at_floor"
    python = tmp_path / "trainer-env/bin/python"
    seen = run([python, "-c", LOOK], cwd=tmp_path, env=plain, capture_output=True, text=True)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.split() == ["1.26.4", "0"]


#: Every module imports with what the distribution asks for, and vLLM would find nothing to load.
LOOK = f"""
import importlib, pkgutil, numpy, driftscope_client
from importlib.metadata import entry_points
for module in pkgutil.walk_packages(driftscope_client.__path__, "driftscope_client."):
    importlib.import_module(module.name)
print(numpy.__version__, len(entry_points(group={PLUGINS!r})))
"""
