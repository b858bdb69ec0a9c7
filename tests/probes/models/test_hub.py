"""Against a small server that answers as the Hub does, and against the Hub's cache on disk."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.models.fetch import is_hub_id

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "acme/tiny"
FETCH = Path(__file__).parent / "children" / "fetch_model.py"


class Hub(ThreadingHTTPServer):
    """One repository with the files of a folder; remembers which files were asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.served: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path in (f"/api/models/{REPOSITORY}", f"/api/models/{REPOSITORY}/revision/main"):
            self.answer(json.dumps({"id": REPOSITORY, "sha": COMMIT}).encode())
        elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            self.answer(json.dumps([self.entry(p) for p in self.server.folder.iterdir()]).encode())
        elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
            name = path.rsplit("/", 1)[1]
            self.server.served.add(name)
            self.answer((self.server.folder / name).read_bytes())
        else:
            self.answer(b"{}", status=404)

    def entry(self, path: Path) -> dict[str, Any]:
        oid = hashlib.sha1(path.read_bytes()).hexdigest()
        return {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": oid}

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(llama_copy: Path) -> Iterator[Hub]:
    with Hub(llama_copy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def environment(child_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**child_environment, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}


def fetched(name: str, environment: dict[str, str]) -> dict[str, Any]:
    """Last line of a fetch in a process of its own: the Hub's settings are read at import."""
    command = [sys.executable, str(FETCH), name]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    last: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    assert finished.returncode == (1 if "error" in last else 0), finished.stderr
    return last


def online(environment: dict[str, str], hub: Hub) -> dict[str, str]:
    return {**environment, "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0"}


def put_into_cache(folder: Path, environment: dict[str, str]) -> Path:
    repository = Path(environment["HF_HOME"]) / "hub" / "models--acme--tiny"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("HuggingFaceTB/SmolLM2-135M", True),
        ("a/b@main", True),
        ("a/b@refs/pr/1", True),
        ("a", False),
        ("a/b/c", False),
        ("/a/b", False),
        ("../b", False),
        ("a/b c", False),
        ("a/é", False),
        ("a/" + "b" * 200, False),
    ],
)
def test_what_looks_like_a_hub_id(name: str, is_one: bool) -> None:
    assert is_hub_id(name) is is_one


def test_download_takes_only_what_is_loaded(
    hub: Hub, llama_copy: Path, environment: dict[str, str]
) -> None:
    for unwanted in ("pytorch_model.bin", "modeling_custom.py", "consolidated.safetensors"):
        (llama_copy / unwanted).write_bytes(b"unwanted")
    last = fetched(REPOSITORY, online(environment, hub))
    assert last["model"]["origin"] == "hub"
    assert last["model"]["revision"] == COMMIT
    assert last["model"]["parameters"] == 836_736
    wanted = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert hub.served == wanted | {"chat_template.jinja", "model.safetensors"}
    assert fetched(REPOSITORY, environment) == last, "offline it is found in the cache"
    assert fetched(f"{REPOSITORY}@{COMMIT}", environment)["path"] == last["path"]


def test_remote_code_is_refused_before_the_weights_are_downloaded(
    hub: Hub, llama_copy: Path, environment: dict[str, str]
) -> None:
    config = llama_copy / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoConfig": "a.B"}})
    )
    last = fetched(REPOSITORY, online(environment, hub))
    assert "asks for code that comes with the model" in last["error"]["message"]
    assert "model.safetensors" not in hub.served


def test_pickles_alone(hub: Hub, llama_copy: Path, environment: dict[str, str]) -> None:
    (llama_copy / "model.safetensors").rename(llama_copy / "pytorch_model.bin")
    last = fetched(REPOSITORY, online(environment, hub))
    assert "has neither model.safetensors" in last["error"]["message"]
    assert "pytorch_model.bin" not in hub.served


def test_unknown_repository(hub: Hub, environment: dict[str, str]) -> None:
    last = fetched("acme/other", online(environment, hub))
    assert "acme/other is neither a folder here nor a model" in last["error"]["message"]


def test_no_connection(environment: dict[str, str]) -> None:
    # Port 9 (discard) is closed on any machine that does not run that service.
    there = {**environment, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    last = fetched(REPOSITORY, there)
    assert "is neither a folder here nor a model" in last["error"]["message"]
    assert "network" in last["error"]["remedy"]


def test_offline_and_not_cached(environment: dict[str, str]) -> None:
    last = fetched(REPOSITORY, environment)
    assert "HF_HUB_OFFLINE forbids a download" in last["error"]["message"]
    assert "HF_HUB_OFFLINE=0" in last["error"]["remedy"]


def test_offline_and_cached(llama_copy: Path, environment: dict[str, str]) -> None:
    snapshot = put_into_cache(llama_copy, environment)
    last = fetched(REPOSITORY, environment)
    assert last["path"] == str(snapshot)
    assert last["model"]["revision"] == COMMIT


def test_offline_and_half_cached(llama_copy: Path, environment: dict[str, str]) -> None:
    (llama_copy / "model.safetensors").unlink()
    put_into_cache(llama_copy, environment)
    last = fetched(REPOSITORY, environment)
    assert "has neither model.safetensors" in last["error"]["message"]
