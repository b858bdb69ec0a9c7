"""The child process from end to end, and how its death is told."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_trainer_crash
from driftscope_probes.dtypes import parse_mode
from driftscope_probes.errors import ModelError, TrainerError
from driftscope_probes.progress import Progress, ProgressSink, discard
from driftscope_probes.prompts import PromptBatch, write_prompts
from driftscope_probes.trace import Trace, both_sides
from driftscope_probes.trace_file import read_trace, write_trace
from driftscope_probes.trainer.forward import score_rollout
from driftscope_probes.trainer.load import LoadedModel
from driftscope_probes.trainer.run_trainer import run, set_threads
from driftscope_probes.trainer.settings import TrainerSettings

MODULE = "driftscope_probes.trainer.run_trainer"
Request = dict[str, Any]


@pytest.fixture
def make_request(
    tmp_path: Path, llama_folder: Path, prompts: PromptBatch, make_rollout: Callable[..., Trace]
) -> Callable[..., Request]:
    def make(
        modes: list[str], engines: tuple[str, ...] = ("bf16", "fp16"), **settings: Any
    ) -> Request:
        write_prompts(prompts, tmp_path / "prompts.safetensors")
        rollouts = {}
        for seed, dtype in enumerate(engines):
            path = tmp_path / f"rollout-{dtype}.safetensors"
            write_trace(make_rollout(seed=seed, dtype=dtype), path)
            rollouts[dtype] = str(path)
        return {
            "model_path": str(llama_folder),
            "model_name": "tiny",
            "modes": modes,
            "prompts": str(tmp_path / "prompts.safetensors"),
            "rollouts": rollouts,
            "settings": TrainerSettings(threads=1, **settings).model_dump(),
        }

    return make


def start(request: Request, workdir: Path, on_progress: ProgressSink = discard) -> ChildProcess:
    return ChildProcess(
        MODULE, request, workdir, explain_crash=explain_trainer_crash, on_progress=on_progress
    )


def test_every_mode_meets_every_rollout(
    make_request: Callable[..., Request],
    tmp_path: Path,
    load: Callable[..., LoadedModel],
    prompts: PromptBatch,
) -> None:
    seen: list[Progress] = []
    request = make_request(["fp32", "bf16"], backward=True)
    child = start(request, tmp_path / "work", seen.append)
    result = child.wait()
    assert list(result["traces"]) == ["fp32", "bf16"]
    for mode, files in result["traces"].items():
        for engine_dtype, path in files.items():
            rollout = read_trace(Path(request["rollouts"][engine_dtype]))
            trainer = read_trace(Path(path))
            both_sides(rollout, trainer)
            here = score_rollout(
                load(mode), parse_mode(mode), prompts, rollout, TrainerSettings()
            ).trace
            assert np.array_equal(trainer.logprobs, here.logprobs)
    cells = [(item["engine_dtype"], item["trainer_dtype"]) for item in result["gradients"]]
    assert sorted(cells) == [("bf16", "bf16"), ("bf16", "fp32"), ("fp16", "bf16"), ("fp16", "fp32")]
    assert all(item["norm_relative_difference"] is not None for item in result["gradients"])
    assert result["headroom"]["safe"] is True
    assert set(result["timing"]) == {
        "import_s",
        "load_s",
        "forward_s",
        "backward_s",
        "headroom_s",
    }
    assert min(result["timing"].values()) > 0.0
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert {"scoring in bf16", "scoring in fp32"} <= {progress.stage for progress in seen}
    assert "%|" not in child.log_tail()  # no progress bars in the log


def test_headroom_and_gradients_only_where_asked(
    make_request: Callable[..., Request], tmp_path: Path
) -> None:
    request = make_request(["autocast-bf16"], ("bf16",), headroom=False)
    result = run(request, tmp_path, discard)
    assert result["headroom"] is None
    assert result["gradients"] is None
    assert result["timing"]["headroom_s"] == 0.0


def test_headroom_loads_float32_when_no_mode_needs_it(
    make_request: Callable[..., Request], tmp_path: Path
) -> None:
    result = run(make_request(["bf16"], ("bf16",)), tmp_path, discard)
    assert result["headroom"]["mode"] == "fp32"
    assert list(result["traces"]) == ["bf16"]


def test_a_killed_trainer_is_explained(
    make_request: Callable[..., Request], tmp_path: Path
) -> None:
    child: ChildProcess

    def kill_while_scoring(progress: Progress) -> None:
        if progress.stage.startswith("scoring"):
            os.kill(child.pid, signal.SIGKILL)

    child = start(make_request(["bf16"]), tmp_path / "work", kill_while_scoring)
    with pytest.raises(TrainerError, match="SIGKILL") as caught:
        child.wait()
    assert "micro_batch" in caught.value.remedy


def test_an_unloadable_model_keeps_its_own_words(
    make_request: Callable[..., Request], tmp_path: Path
) -> None:
    request = {**make_request(["bf16"]), "model_path": str(tmp_path / "nowhere")}
    with pytest.raises(ModelError, match="cannot load tiny"):
        start(request, tmp_path / "work").wait()


def test_threads_default_to_the_cores_of_this_process() -> None:
    set_threads(None)
    assert torch.get_num_threads() == len(os.sched_getaffinity(0))
    set_threads(1)
    assert torch.get_num_threads() == 1
