"""A server that does not tell, or is none. What a real one tells: tests/probes/engines."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from driftscope_probes.errors import EngineError, RequestError
from driftscope_probes.lint.readers import vllm_server
from driftscope_probes.lint.readers.vllm_server import read_server

VERSION = '{"version": "0.11.0"}'
MODELS = json.dumps({"data": [{"id": "m", "root": "a/model", "max_model_len": 4096}]})


@contextmanager
def answering(answers: dict[str, tuple[int, str]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path.partition("?")[0], (404, "{}"))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/version")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_server_without_dev_mode_tells_its_version_and_model() -> None:
    with answering({"/version": (200, VERSION), "/v1/models": (200, MODELS)}) as address:
        told = read_server(address)
    assert {one.name: one.value for one in told} == {
        "engine.name": "vllm",
        "engine.version": "0.11.0",
        "engine.model": "a/model",
        "engine.max_length": 4096,
    }


def test_defaults_of_variables_for_cpus_make_no_gpu_server_one_on_cpus() -> None:
    info = {
        "vllm_config": {
            "device_config": {"device": "cuda"},
            "speculative_config": {"method": "mtp"},
            "lora_config": {"max_loras": 1},
        },
        "vllm_env": {"VLLM_CPU_ATTN_SPLIT_KV": True, "VLLM_BATCH_INVARIANT": True},
        "system_env": {"nvidia_gpu_models": "GPU 0: NVIDIA L20\nGPU 1: NVIDIA L20"},
    }
    answers = {"/version": (200, VERSION), "/server_info": (200, json.dumps(info))}
    with answering(answers) as address:
        told = read_server(address)
    assert told.value("machine.device") == "cuda"
    assert told.value("machine.gpu") == "nvidia l20"
    assert told.value("engine.speculative") == "mtp"
    assert told.value("engine.lora") is True
    assert told.value("environment.batch_invariant") is True
    assert told.get("environment.cpu_split_kv") is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, "{}"), "answered 401"),
        ((302, ""), "answered 302"),
        ((200, "<html>"), "not JSON"),
        ((200, '{"a":' * 50_000), "not JSON"),
    ],
    ids=["key", "elsewhere", "html", "deep"],
)
def test_what_is_no_vllm_server_is_said(answer: tuple[int, str], said: str) -> None:
    with (
        answering({"/version": answer}) as address,
        pytest.raises(EngineError, match=said) as error,
    ):
        read_server(address)
    assert error.value.remedy


def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_server, "TIMEOUT_S", 0.05)
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent,
        pytest.raises(EngineError, match=r"did not answer in 0\.05 s"),
    ):
        read_server(f"http://127.0.0.1:{silent.server_port}")


@pytest.mark.parametrize("address", ["file:///etc/passwd", "127.0.0.1:8000", "http://h:99999"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(RequestError, match="no address of a server") as error:
        read_server(address)
    assert "http://" in error.value.remedy


def test_nobody_there() -> None:
    with pytest.raises(EngineError, match="cannot be asked"):
        read_server("http://127.0.0.1:1")
