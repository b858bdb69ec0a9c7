"""The storage that a setting names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from driftscope_service.store.storage.base import Storage
from driftscope_service.store.storage.local import LocalStorage
from driftscope_service.store.storage.object_store import ObjectStorage, require_installed

EXAMPLE = "s3://BUCKET/PREFIX, file:///FOLDER, or nothing for the data folder"
#: Of a remote storage, in the data folder.
CACHE = Path("cache") / "storage"


def parse_storage_url(text: str) -> str:
    """Raises ValueError, without a password in its text."""
    if not text:
        return text
    parts = urlsplit(text)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            f"a URL with a user, a password or a query is not accepted: give {EXAMPLE}; "
            "credentials and the endpoint come from the AWS_* variables"
        )
    if parts.scheme == "s3" and parts.netloc:
        return text.rstrip("/")
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return text
    raise ValueError(f"{text[:80]!r} is not accepted: give {EXAMPLE}")


def open_storage(url: str, data_dir: Path) -> Storage:
    """Touches neither disk nor network. `url`: as `parse_storage_url` returned it."""
    if not url:
        return LocalStorage(data_dir)
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalStorage(Path(unquote(parts.path)))
    require_installed()
    return ObjectStorage(url, data_dir / CACHE)
