"""Run in a process of its own by `test_run_pair`: real engines beside transformers models.

    python pair_script.py REQUEST.json RESULT.json

A request is a list of pairs: folder, trainer's folder, and fields of an ExplainRequest. Of each
come back the report's parts, and what of both models was changed afterwards.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from driftscope_probes.explain.request import ExplainRequest
from driftscope_probes.explain.run_pair import compare_sides, load_sides
from driftscope_probes.explain.sites import Place
from driftscope_probes.progress import discard
from driftscope_probes.prompts import PromptBatch

#: Lengths of prompts: with 6 tokens more, one sequence is shorter than a tile of any kernel.
PROMPTS = [[3 + (7 * i + j * j) % 480 for j in range(length)] for i, length in enumerate((5, 40))]
#: Small engines live on beside each other: ending one takes longer than all that it computed.
KEPT: list[Any] = []


class _Broken:
    """A tap that fails in the middle of a model."""

    def at(self, place: Place, value: Tensor, rows: Tensor) -> Tensor:
        if place == Place(1, "attention"):
            raise RuntimeError("planted")
        return value


def code_of(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that hooks could change: attributes, hooks, the rotary function."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[name] = {
            key: (sorted(map(str, value)) if key.endswith("_hooks") else str(type(value)))
            for key, value in vars(module).items()
            if key == "forward" or key.endswith("_hooks") or key == "select_experts"
        }
        package = sys.modules[type(module).__module__]
        rotary = getattr(package, "apply_rotary_pos_emb", None)
        found[f"{name} rotary"] = str(rotary)
    return found


def answer(pair: dict[str, Any]) -> dict[str, Any]:
    asked = ExplainRequest(**pair["request"])
    folder = Path(pair["folder"])
    trainer_folder = Path(pair.get("trainer") or folder)
    engine, trainer = load_sides(
        asked, folder, trainer_folder, PromptBatch.from_lists(PROMPTS), discard
    )
    KEPT.append(engine)
    models = (engine.model, trainer.loaded.model)  # type: ignore[attr-defined]
    before = [code_of(model) for model in models]
    with tempfile.TemporaryDirectory() as scratch:
        parts = compare_sides(asked, engine, trainer, Path(scratch), discard)
    left = [code_of(model) != code for model, code in zip(models, before, strict=True)]
    failed = []
    if pair.get("breaks"):
        sample = engine.draw()
        for side in (trainer, engine):
            try:
                side.run(sample, _Broken())
            except RuntimeError as error:
                failed.append(str(error))
        left += [code_of(model) != code for model, code in zip(models, before, strict=True)]
    return {"parts": parts.to_dict(), "changed": left, "failed": failed}


def main() -> None:
    request, result = sys.argv[1:]
    pairs = json.loads(Path(request).read_text(encoding="utf-8"))
    Path(result).write_text(json.dumps([answer(pair) for pair in pairs]), encoding="utf-8")


if __name__ == "__main__":
    main()
