"""Configurations of trainers in each framework's shape, as small as they are recognised.

In: what a case is about. Out: file name → content.
"""

from __future__ import annotations

import json
import textwrap

Files = dict[str, str]


def verl(*overrides: str) -> Files:
    words = ("actor_rollout_ref.rollout.name=vllm", *overrides)
    lines = "".join(f" \\\n    {word}" for word in words)
    return {"run.sh": f"#!/bin/bash\nset -x\npython3 -m verl.trainer.main_ppo{lines}\n"}


def slime(*flags: str, program: str = "train.py") -> Files:
    """Dropout is set, as in all published scripts, unless a flag says so itself."""
    dropout = () if any("dropout" in flag for flag in flags) else ("--attention-dropout 0.0",)
    listed = "".join(f"   {flag}\n" for flag in ("--rollout-batch-size 32", *dropout, *flags))
    return {
        "run.sh": f"ARGS=(\n{listed})\nray job submit --address=http://127.0.0.1:8265 \\\n"
        f"   -- python3 {program} \\\n   --colocate \\\n   ${{ARGS[@]}}\n"
    }


def trl(**arguments: object) -> Files:
    table = {"num_generations": 8, "use_vllm": True, "max_completion_length": 512, **arguments}
    return {"grpo.yaml": "".join(f"{key}: {json.dumps(value)}\n" for key, value in table.items())}


def nemo_rl(text: str) -> Files:
    return {"grpo.yaml": textwrap.dedent(text)}


def prime_rl(text: str) -> Files:
    head = "[orchestrator]\nbatch_size = 64\n\n[inference]\nseed = 0\n\n"
    return {"rl.toml": head + textwrap.dedent(text)}
