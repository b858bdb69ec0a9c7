"""What every storage promises, on each of them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from driftscope_service.store.storage import local, object_store
from driftscope_service.store.storage.base import (
    Storage,
    StorageUnavailable,
    is_ours,
    our_files,
)
from driftscope_service.store.storage.local import LocalStorage
from driftscope_service.store.storage.object_store import ObjectStorage
from driftscope_service.store.storage.opening import open_storage, parse_storage_url

RAW = "steps/01JAAAAAAAAAAAAAAAAAAAAAAA.raw"
REPORT = "reports/report_01JAAAAAAAAAAAAAAAAAAAAAAA/report.json"
PAIR = "reports/report_01JAAAAAAAAAAAAAAAAAAAAAAA/pairs/a.safetensors"


def put(storage: Storage, name: str, content: bytes, folder: Path) -> None:
    source = folder / "source"
    source.write_bytes(content)
    storage.put(name, source)
    assert not source.exists()


def names(storage: Storage, folder: str) -> list[str]:
    return sorted(file.name for file in storage.files(folder))


def test_a_file_put_is_read_listed_and_removed(storage: Storage, tmp_path: Path) -> None:
    for name, content in ((RAW, b"raw"), (REPORT, b"{}"), (PAIR, b"pair")):
        put(storage, name, content, tmp_path)
        assert storage.path(name).read_bytes() == storage.read(name) == content
        assert storage.size(name) == len(content)
    assert names(storage, "steps") == [RAW]
    assert names(storage, "reports") == [PAIR, REPORT]
    assert {file.size_bytes for file in our_files(storage)} == {2, 3, 4}
    storage.remove([RAW, PAIR, REPORT, "steps/gone.raw"])
    assert list(our_files(storage)) == []
    assert storage.size(RAW) is None


def test_what_is_not_there(storage: Storage) -> None:
    for read in (storage.path, storage.read):
        with pytest.raises(FileNotFoundError):
            read(RAW)
    assert names(storage, "steps") == []
    storage.remove([RAW])


def test_a_small_file_is_written_again(storage: Storage) -> None:
    for content in (b"first", b"second"):
        storage.write("storage-id.json", content)
        assert storage.read("storage-id.json") == content
    assert list(our_files(storage)) == []


def test_other_machines_see_it(storage_url: str, storage: Storage, tmp_path: Path) -> None:
    if not storage_url:
        pytest.skip("the data folder is of one machine")
    put(storage, RAW, b"raw", tmp_path)
    elsewhere = open_storage(storage_url, tmp_path / "elsewhere")
    assert elsewhere.path(RAW).read_bytes() == b"raw"
    elsewhere.remove([RAW])
    assert storage.size(RAW) is None


@pytest.mark.parametrize("name", ["../secret", "steps/../../secret", "/etc/hostname", "a//b", ""])
def test_no_name_leaves_the_storage(storage: Storage, name: str) -> None:
    with pytest.raises(AssertionError):
        storage.read(name)


def test_names_of_ours() -> None:
    ours = (RAW, REPORT, PAIR, f"{RAW}.partial", REPORT.replace("/report.json", ".partial/a"))
    assert all(map(is_ours, ours))
    foreign = ("steps/lost+found/x", "steps/notes.txt", "steps/unnamed.raw", "reports/x/y", "a")
    assert not any(map(is_ours, foreign))


def test_a_folder_on_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(path: Path, target: Path) -> None:
        if path.name == "source":
            raise OSError(errno.EXDEV, "other disk")
        path.replace(target)

    monkeypatch.setattr(Path, "rename", other_disk)
    storage = LocalStorage(tmp_path / "shared")
    put(storage, RAW, b"raw", tmp_path)
    assert names(storage, "steps") == [RAW]


def test_a_rename_that_is_not_durable_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path / "data")
    put(storage, RAW, b"first", tmp_path)

    def broken(path: Path) -> None:
        if path.is_dir():
            raise OSError(errno.EIO, "fsync")

    monkeypatch.setattr(local, "sync", broken)
    with pytest.raises(OSError, match="fsync"):
        put(storage, RAW.replace("raw", "parquet"), b"second", tmp_path)
    assert names(storage, "steps") == [RAW]


def test_foreign_entries_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "steps" / "lost+found").mkdir(parents=True)
    (tmp_path / "steps" / "lost+found" / "x").write_text("mine")
    (tmp_path / "steps" / "dangling.raw").symlink_to(tmp_path / "nowhere")
    assert list(our_files(LocalStorage(tmp_path))) == []


def test_a_server_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    storage = ObjectStorage("s3://bucket/prefix", tmp_path / "cache")
    with pytest.raises(StorageUnavailable, match="s3://bucket/prefix does not answer"):
        put(storage, RAW, b"raw", tmp_path)


def test_the_cache_stays_within_its_bounds(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "IN_USE_S", -1.0)
    cache = tmp_path / "cache"
    storage = ObjectStorage(s3_url, cache, cache_bytes=25)
    every = [RAW.replace("J", letter) for letter in "ABCDE"]
    for name in every:
        put(storage, name, b"ten bytes.", tmp_path)
    assert len(list(cache.iterdir())) == 2
    for name in every:
        assert storage.path(name).read_bytes() == b"ten bytes."
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "url",
    ["http://h/x", "s3:///x", "s3://user:password@bucket", "file://host/x", "s3://b?x=1", "b/x"],
)
def test_urls_that_are_not_accepted(url: str) -> None:
    with pytest.raises(ValueError, match="give s3://BUCKET/PREFIX") as error:
        parse_storage_url(url)
    assert "password@" not in str(error.value)
