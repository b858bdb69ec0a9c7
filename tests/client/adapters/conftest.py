"""A real GRPOTrainer on a tiny model, on the CPU, with the adapter mixed in."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driftscope_client import DriftscopeClient
from driftscope_client.adapters.trl import DriftscopeMixin
from driftscope_probes.push import PushedStep, read_step

PROMPTS = ["hello there", "abc def ghi jkl", "one two", "x y z"]

MakeTrainer = Callable[..., Any]
VERL_OWN = Path(__file__).parents[3] / "bench" / "verl_own.py"


@pytest.fixture(scope="session")
def verl_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """verl's own functions, from its wheel."""
    spec = importlib.util.spec_from_file_location("client_verl_own", VERL_OWN)
    assert spec is not None and spec.loader is not None
    before = dict(sys.modules)
    source = sys.modules["client_verl_own"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    try:
        yield source.load(source.download_wheel(tmp_path_factory.mktemp("verl")))
    except source.VerlUnreachable as error:
        pytest.skip(str(error))
    finally:
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in ("verl", "client_verl_own"):
                del sys.modules[name]


@pytest.fixture
def make_trainer(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTrainer:
    """`client=None`: TRL's own trainer, without the adapter."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL names the newest vLLM it was tried with
        from trl import GRPOConfig, GRPOTrainer
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    class Trainer(DriftscopeMixin, GRPOTrainer):  # type: ignore[misc]
        pass

    def make(client: DriftscopeClient | None, rollout_func: Any = None, **config: Any) -> Any:
        settings = {
            "output_dir": str(tmp_path / "trainer"),
            "use_cpu": True,
            "bf16": False,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "num_generations": 2,
            "max_completion_length": 8,
            "max_steps": 3,
            "learning_rate": 2e-3,
            "temperature": 0.8,
            "gradient_checkpointing": False,
            "dataloader_pin_memory": False,
            "disable_tqdm": True,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "seed": 5,
        }
        seen: list[tuple[str, list[int]]] = []

        def reward(prompts: Any, completion_ids: Any, **_: Any) -> list[float]:
            seen.extend(zip(prompts, completion_ids, strict=True))
            return [float(sum(ids) % 7) for ids in completion_ids]

        trainer = (GRPOTrainer if client is None else Trainer)(
            model=AutoModelForCausalLM.from_pretrained(str(tiny_llama), dtype=torch.float32),
            args=GRPOConfig(**{**settings, **config}),
            train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
            reward_funcs=reward,
            rollout_func=rollout_func,
        )
        trainer.seen = seen
        if client is not None:
            trainer.driftscope = client
        return trainer

    return make


@pytest.fixture
def steps_of(tmp_path: Path) -> Callable[[Any], dict[int, PushedStep]]:
    """What a stub received, as the service reads it."""

    def read(stub: Any) -> dict[int, PushedStep]:
        steps = {}
        for path, _, body in stub.requests:
            file = tmp_path / "received.safetensors"
            file.write_bytes(body)
            number = int(path.split("/")[5])
            assert number not in steps
            steps[number] = read_step(file)
        return steps

    return read
