"""Benches of the product's LiveEngine and LiveTrainer, their sessions in this process.

transformers stands for the engine, so that a planted system costs no start; test_live_weights.py
has vLLM in processes of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.live_engine import LiveEngine
from driftscope_probes.diagnosis.controls.live_trainer import LiveTrainer
from driftscope_probes.diagnosis.controls.sides import Known, Sides
from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.engines.sessions.question import Answer, Batch, Setup
from driftscope_probes.engines.sessions.run_session import Desk
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.models.adapter import Adapter, read_adapter
from driftscope_probes.models.merge import folder_tensors
from driftscope_probes.models.safetensors_file import MasterDtype, PlannedTensor, write
from driftscope_probes.trainer.run_session import TrainerDesk
from driftscope_probes.trainer.settings import TrainerSettings

PROMPT_LENGTHS = (9, 17, 30, 5)
RESPONSE_TOKENS = 24
RANK = 8

Values = NDArray[np.float32]
Change = Callable[[str, Values], Values]
MakeBench = Callable[..., Bench]


class _Seat:
    """A Runner of this process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._opened: Setup | None = None
        self.engines: list[dict[str, Any]] = []

    def run(self, setup: Setup, batch: Batch) -> Answer:
        if setup != self._opened:
            self.engines.append(dict(self._desk.reply({"open": setup.to_dict()})))
            self._opened = setup
        return Answer.from_dict(self._desk.reply({"run": batch.to_dict()}))

    def close(self) -> None: ...


class HereEngine(LiveEngine):
    """`desk`: of a session that plants a fault into each engine that it opens."""

    def __init__(self, sides: Sides, workdir: Path, desk: type[Desk] = Desk) -> None:
        super().__init__(sides, workdir)
        self._first = _Seat(desk(sides.engine_model))  # type: ignore[assignment]
        self._other = _Seat(desk(sides.engine_model))  # type: ignore[assignment]


class _DeskAsked:
    alive = True

    def __init__(self) -> None:
        self._desk = TrainerDesk()

    def ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self._desk.reply(json.loads(json.dumps(dict(question))))
        told: Mapping[str, Any] = json.loads(json.dumps(dict(answer), allow_nan=False))
        return told

    def close(self) -> None: ...


class HereTrainer(LiveTrainer):
    def __init__(self, sides: Sides) -> None:
        super().__init__(sides, Path("unused"))
        self._child = _DeskAsked()


def sides_of(engine_model: Path, trainer_model: Path, dtype: str = "bf16", **fields: Any) -> Sides:
    random = np.random.default_rng(0)
    prompts = tuple(
        tuple(random.integers(3, 700, size=length).tolist()) for length in PROMPT_LENGTHS
    )
    given: dict[str, Any] = {
        "engine": EngineSettings(kind="hf", threads=1),
        "trainer": TrainerSettings(threads=1),
        "engine_dtype": dtype,
        "trainer_mode": dtype,
        "sampling": SamplingSettings(max_tokens=RESPONSE_TOKENS),
        "prompts": prompts,
    }
    return Sides(engine_model, trainer_model, **{**given, **fields})


def known_of(sides: Sides, **fields: Any) -> Known:
    moe = fields.get("mixture_of_experts", False)
    return Known(prior_floor(sides.engine_dtype, sides.trainer_mode, moe=moe), **fields)


def folder(
    base: Path,
    target: Path,
    change: Change = lambda _, values: values,
    dtype: MasterDtype = "bf16",
) -> Path:
    """A copy of `base` whose tensors went through `change`."""
    target.mkdir()
    for file in base.iterdir():
        if file.suffix in (".json", ".jinja") and file.name != "manifest.json":
            (target / file.name).write_bytes(file.read_bytes())
    tensors = folder_tensors(base)

    def planned(name: str) -> PlannedTensor:
        tensor = tensors[name]
        return PlannedTensor(name, tensor.shape, lambda: change(name, tensor.values()))

    write(target / "model.safetensors", [planned(name) for name in tensors], dtype)
    return target


def moved(by: float, seed: int = 0) -> Change:
    """Every matrix, by `by` of its own size: weights of another step."""

    def change(name: str, values: Values) -> Values:
        if values.ndim == 1:
            return values
        random = np.random.default_rng([seed, len(name), values.size])
        noise = random.standard_normal(values.shape) * values.std() * by
        added: Values = (values + noise).astype(np.float32)
        return added

    return change


def adapter(base: Path, target: Path, size: float = 0.1) -> Adapter:
    """Of `size` of the weights, as PEFT writes it."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(5)
    tensors = {}
    for name, tensor in folder_tensors(base).items():
        module = name.removesuffix(".weight")
        if module.endswith(("q_proj", "v_proj", "down_proj")):
            outputs, inputs = tensor.shape
            a = random.standard_normal((RANK, inputs)) / inputs**0.5
            b = random.standard_normal((outputs, RANK)) * float(tensor.values().std()) * size
            tensors[f"base_model.model.{module}.lora_A.weight"] = a.astype(np.float32)
            tensors[f"base_model.model.{module}.lora_B.weight"] = b.astype(np.float32)
    target.mkdir()
    save_file(tensors, target / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "base_model_name_or_path": str(base),
    }
    (target / "adapter_config.json").write_text(json.dumps(config))
    return read_adapter(str(target))
