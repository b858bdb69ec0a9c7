"""One real vLLM server in bf16; faults are planted by what the trainer is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from driftscope_probes.errors import RequestError
from driftscope_probes.explain.server.report import ServerReport
from driftscope_probes.explain.server.request import ServerExplainRequest
from driftscope_probes.explain.server.run import explain_server
from driftscope_probes.progress import Progress

from ...engines.test_vllm_server import free_port, wait_until_ready

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow
CONTEXT, LONGEST, WINDOW = 256, 160, 64


def folder_of(base: Path, target: Path, **config: Any) -> Path:
    target.mkdir()
    for file in base.iterdir():
        if file.is_file() and file.name != "config.json":
            (target / file.name).symlink_to(file.resolve())
    fields = json.loads((base / "config.json").read_text()) | config
    (target / "config.json").write_text(json.dumps(fields))
    return target


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """The tiny Llama's weights as a Mistral, which may have a sliding window."""
    target = tmp_path_factory.mktemp("models") / "served"
    shape = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    return folder_of(tiny_llama, target, sliding_window=None, **shape)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, served: Path) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log.txt"
    options = ["--host=127.0.0.1", f"--port={port}", f"--model={served}", "--dtype=bfloat16"]
    options += ["--served-model-name=tiny", f"--max-model-len={CONTEXT}", "--enforce-eager"]
    options += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    options += [f"--kv-cache-memory-bytes={2**26}", "--generation-config=vllm"]
    quiet = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1"}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | quiet | {"OMP_NUM_THREADS": "1"},
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(address, process, log)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def explained(server: str, served: Path, workdir: Path, **asked: Any) -> ServerReport:
    seen: list[Progress] = []
    sampling = {"max_tokens": 24, **asked.pop("sampling", {})}
    request = ServerExplainRequest(
        engine_server=server, model=str(served), longest=LONGEST, sampling=sampling, **asked
    )
    report = explain_server(request, workdir, seen.append)
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions) and fractions[-1] <= 1.0
    # As stored and read again.
    assert ServerReport.read(json.loads(json.dumps(report.to_dict()))) == report
    return report


def test_a_healthy_pair_is_rounding(server: str, served: Path, tmp_path: Path) -> None:
    report = explained(server, served, tmp_path)
    assert (report.verdict, report.exit_code) == ("rounding", 1), report.sentence
    assert report.truncation is not None and report.truncation.where == "none"
    assert report.best is None
    # One thread, eager: this server gives the same bits however it is asked.
    assert report.floors is not None and report.floors.server_itself_equal == 1.0
    assert report.precision is not None and report.precision.resolution == 0.0
    tried = {one.name: one for one in report.server_settings}
    assert all(one.own_equal_fraction == 1.0 for one in tried.values()), tried
    assert {"prefill", "beside others", "temperature", "chunk border"} <= tried.keys()
    assert report.server["max_length"] == CONTEXT
    assert {one.what for one in report.unknown} >= {"which op differs", "the server's dtype"}


def test_another_rotary_base_is_named(server: str, served: Path, tmp_path: Path) -> None:
    rotary = {"rope_type": "default", "rope_theta": 500_000.0}
    trainer = folder_of(served, tmp_path / "planted", rope_parameters=rotary)
    report = explained(server, served, tmp_path / "work", trainer_model=str(trainer))
    assert (report.verdict, report.exit_code) == ("fault", 1)
    assert report.best is not None and report.best.at_floor
    assert report.best.changes == ["config rope_parameters.rope_theta as the engine's"]
    assert report.best.as_good == ["rotary base 10000"]
    assert report.truncation is not None and report.truncation.where == "everywhere"


def test_a_window_is_found_at_its_position(server: str, served: Path, tmp_path: Path) -> None:
    """Beyond the sampled tokens' usual length the sides part: the long texts show it."""
    trainer = folder_of(served, tmp_path / "planted", sliding_window=WINDOW)
    report = explained(server, served, tmp_path / "work", trainer_model=str(trainer))
    onset = report.truncation
    assert onset is not None and (onset.where, onset.at) == ("position", WINDOW + 1)
    assert onset.coincides[0].what == "sliding_window of the trainer's config.json"
    assert report.verdict == "fault" and report.best is not None
    assert report.best.changes == ["config sliding_window as the engine's"]
    assert report.best.as_good == ["window ignored"]


def test_other_weights_and_a_budget(server: str, served: Path, tmp_path: Path) -> None:
    """A trainer that is a step ahead; then the same without the time to look for it."""
    trainer = folder_of(served, tmp_path / "planted")
    tensors = load_file(trainer / "model.safetensors")
    drawn = torch.Generator().manual_seed(0)
    (trainer / "model.safetensors").unlink()
    stepped = {
        name: (value * (1 + 0.1 * torch.randn(value.shape, generator=drawn))).to(value.dtype)
        for name, value in tensors.items()
    }
    save_file(stepped, trainer / "model.safetensors", metadata={"format": "pt"})
    report = explained(server, served, tmp_path / "work", trainer_model=str(trainer))
    assert report.verdict == "fault" and report.best is not None
    assert report.best.changes == ["weights of the engine's folder"]
    late = explained(
        server, served, tmp_path / "late", trainer_model=str(trainer), most_requests=40
    )
    assert (late.verdict, late.requests) == ("fault", 40)
    left = {one.name: one.reason for one in late.not_tried}
    assert "40 requests is used up" in left["truncation"]


def test_an_unknown_name_lists_what_is_served(server: str, served: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"\['tiny'\], asked for was 'other'"):
        explained(server, served, tmp_path, server_model="other")
