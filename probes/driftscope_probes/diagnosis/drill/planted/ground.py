"""Ground: the model under a planted system, and folders of it with other weights.

In: a policy of the drill, dtypes, a seed. Out: prompts, real updates of its weights, and Hugging
Face folders that the two sides load.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from driftscope_probes.diagnosis.drill.case import Setting
from driftscope_probes.diagnosis.drill.damage import Damage, strength
from driftscope_probes.diagnosis.drill.faults.low_rank import RANK, adapter_of
from driftscope_probes.diagnosis.drill.faults.weights import STEP_BOUNDS
from driftscope_probes.diagnosis.drill.lab import Lab
from driftscope_probes.diagnosis.drill.updates import Displacement, Rule, displacement, move
from driftscope_probes.dtypes import Dtype
from driftscope_probes.models.adapter import WEIGHTS_NAME, Adapter, read_adapter
from driftscope_probes.models.checks import ADAPTER_CONFIG_NAME

#: Groups of four prompts, every other one long, as a lab draws them.
SEQUENCES, MAX_TOKENS = 16, 24
#: Above a block of vLLM's prefix cache on CPU, which has 128 tokens.
LONG_CONTEXT = 200


class Ground:
    """`work`: an empty folder of this system alone."""

    def __init__(
        self,
        folder: Path,
        work: Path,
        seed: int,
        rollout_dtype: Dtype = "bf16",
        trainer_dtype: Dtype = "bf16",
    ) -> None:
        self.folder, self.work, self.seed = folder, work, seed
        self.rollout_dtype: Dtype = rollout_dtype
        self.trainer_dtype: Dtype = trainer_dtype
        self.lab = Lab(folder, rollout_dtype, trainer_dtype, seed)
        self.setting = Setting(
            "planted",
            folder.name,
            rollout_dtype,
            trainer_dtype,
            SEQUENCES,
            MAX_TOKENS,
            seed=seed,
        )

    def prompts(self, context: int = 0) -> tuple[tuple[int, ...], ...]:
        return self.lab.prompts(SEQUENCES, self.seed, context)

    def model(self) -> Any:
        """In float32, the caller's own."""
        return Lab(self.folder, "fp32", "fp32", self.seed).trainer(fresh=True)

    def update(self, rule: Rule) -> Displacement:
        """What real steps of training change, in float32."""
        return displacement(self.lab, self.setting, rule)

    def dose(self, damage: Damage, severity: float) -> float:
        """Of a damage whose strength is a multiple of an update, as the drill on data doses it."""
        return strength(self.lab, self.setting, damage, severity, self.seed, STEP_BOUNDS)

    def moved(self, rule: Rule, severity: float) -> Any:
        """The model after so many such steps that the severity is reached."""
        difference = self.update(rule)
        by = self.dose(lambda model, factor, _: move(model, difference, factor), severity)
        return move(self.model(), difference, by)

    def saved(self, name: str, model: Any, dtype: Dtype = "bf16") -> Path:
        """A folder with this model's weights, rounded to `dtype`."""
        target = self.work / name
        model.to({"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype])
        model.save_pretrained(target)
        for file in self.folder.iterdir():
            if file.suffix in (".json", ".jinja") and not (target / file.name).exists():
                shutil.copy(file, target / file.name)
        return target

    def adapter(self, severity: float) -> Adapter:
        """As PEFT saves it: the largest singular directions of what training changed."""
        factors = adapter_of(self.update("adam"))

        def added(model: Any, by: float, _: int) -> Any:
            with torch.no_grad():
                for name, pair in factors.items():
                    model.get_submodule(name).weight.add_(by * (pair.up @ pair.down))
            return model

        by = self.dose(added, severity)
        folder = self.work / "adapter"
        folder.mkdir()
        tensors = {}
        for name, pair in factors.items():
            tensors[f"base_model.model.{name}.lora_A.weight"] = pair.down.contiguous()
            tensors[f"base_model.model.{name}.lora_B.weight"] = (by * pair.up).contiguous()
        save_file(tensors, folder / WEIGHTS_NAME)
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": str(self.folder),
            "r": RANK,
            "lora_alpha": RANK,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": sorted({name.rsplit(".", 1)[1] for name in factors}),
        }
        (folder / ADAPTER_CONFIG_NAME).write_text(json.dumps(config), encoding="utf-8")
        return read_adapter(str(folder))
