"""Every storage: the data folder, another folder, a bucket of a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope_service.store.storage.base import Storage
from driftscope_service.store.storage.opening import open_storage


@pytest.fixture(params=["data folder", "file", "s3"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3_url"))
    return "" if request.param == "data folder" else f"file://{tmp_path}/shared"


@pytest.fixture
def storage(storage_url: str, tmp_path: Path) -> Storage:
    (tmp_path / "data").mkdir()
    return open_storage(storage_url, tmp_path / "data")
