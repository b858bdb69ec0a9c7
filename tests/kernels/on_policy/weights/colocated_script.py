"""Run in a process of its own by test_real_engine: vLLM and transformers with the same weights.

    python colocated_script.py MODEL RESULT.json

Weights are sent as TRL does it, tensor by tensor; faults are planted into the sending.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from vllm import LLM

from driftscope_kernels.on_policy.weights.colocated import ColocatedProof
from driftscope_kernels.vllm_plugin.linear import PackedOnlyLinear

NOT_SENT = "model.layers.1.self_attn.k_proj.weight"


def looks(folder: str) -> Iterator[dict[str, Any]]:
    llm = LLM(
        model=folder,
        dtype="bfloat16",
        max_model_len=256,
        max_num_seqs=4,
        skip_tokenizer_init=True,
        load_format="safetensors",
        generation_config="vllm",
        kv_cache_memory_bytes=2**26,
        enforce_eager=True,
        disable_log_stats=True,
    )
    engine = llm.llm_engine.model_executor.driver_worker.model_runner.model
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    trainer = SimpleNamespace(
        model=model,
        vllm_generation=SimpleNamespace(llm=llm, enable_sleep_mode=False),
        accelerator=SimpleNamespace(unwrap_model=lambda given: given),
        state=SimpleNamespace(global_step=0),
    )
    proof = ColocatedProof(trainer, exact=True)
    for step in range(3):
        trainer.state.global_step = step
        if step:
            update(model)
        for name, parameter in model.named_parameters():
            if is_sent(step, name):
                engine.load_weights([(name, parameter.data)])
        llm.reset_prefix_cache()
        found = [json.loads(str(proof.digest()))]
        # What was written is packed at the next product, and read from there.
        proof._by_engine()
        assert any(isinstance(packed_of(one), PackedOnlyLinear) for one in engine.modules())
        found.append(json.loads(str(proof.digest())))
        yield {"before": found[0], "computed": found[1]}


def is_sent(step: int, name: str) -> bool:
    """All, all but one, none."""
    return step == 0 or (step == 1 and name != NOT_SENT)


def packed_of(module: Any) -> Any:
    weight = getattr(module, "weight", None)
    empty = weight is not None and not weight.numel()
    return getattr(module, "cpu_linear", None) if empty else None


def update(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.0625)


if __name__ == "__main__":
    torch.set_num_threads(1)
    Path(sys.argv[2]).write_text(json.dumps(list(looks(sys.argv[1]))))
    os._exit(0)  # nothing is left to do, which would take seconds
