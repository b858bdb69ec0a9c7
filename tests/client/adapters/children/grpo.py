"""A process of its own: TRL's GRPOTrainer with the adapter; argv: a JSON object with `model`,
`output`, `config`, `strict` and, for vLLM, `vllm`. Out: `<output>/rank_<r>.json`, what TRL logged.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from driftscope_client import DriftscopeClient
from driftscope_client.adapters.trl import DriftscopeMixin


def keep_weights(layer: Any, remove_weight: bool) -> None:
    """vLLM on the CPU packs its weights and drops them: no trainer could load new ones."""
    import torch

    layer.cpu_linear = torch.nn.functional.linear


def main() -> None:
    given = json.loads(sys.argv[1])
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    if given["vllm"]:
        import vllm.model_executor.layers.utils

        vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm = keep_weights
    from trl import GRPOConfig, GRPOTrainer

    class Trainer(DriftscopeMixin, GRPOTrainer):  # type: ignore[misc]
        pass

    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32),
        args=GRPOConfig(output_dir=given["output"], use_cpu=True, bf16=False, **given["config"]),
        train_dataset=Dataset.from_dict({"prompt": ["hello there", "abc def", "one two", "x y z"]}),
        reward_funcs=lambda completion_ids, **_: [float(sum(ids) % 7) for ids in completion_ids],
    )
    trainer.driftscope = DriftscopeClient(strict=given["strict"])
    trainer.train()
    rank = trainer.accelerator.process_index
    client = trainer.driftscope
    outcome = {
        "log": trainer.state.log_history,
        "counts": [client.pushed, client.dropped, client.failed],
        "error": str(client.last_error),
    }
    (Path(given["output"]) / f"rank_{rank}.json").write_text(json.dumps(outcome))
    sys.stdout.flush()
    os._exit(0)  # vLLM's and gloo's own threads would hold up the exit


if __name__ == "__main__":
    main()
