"""Run in a process of its own by test_capture.py: the pasted function on a real vLLM engine.

    python engine_capture.py MODEL DTYPE TO CAPTURE_FILE

Every prompt is read twice, into TO/first and TO/second: equal runs of one engine.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams

KV_BYTES = 64 * 2**20


def main() -> None:
    model, dtype, to, capture_file = sys.argv[1:]
    capture = runpy.run_path(capture_file)["capture"]
    llm = LLM(
        model=model,
        dtype=dtype,
        max_model_len=128,
        skip_tokenizer_init=True,
        load_format="safetensors",
        generation_config="vllm",
        kv_cache_memory_bytes=KV_BYTES,
        use_tqdm_on_load=False,
        enforce_eager=True,
        enable_prefix_caching=False,
    )
    prompts: list[Any] = [
        {"prompt_token_ids": ids} for ids in json.loads(Path(to, "prompts.json").read_text())
    ]
    greedy = SamplingParams(temperature=0.0, max_tokens=1, detokenize=False)
    hooks = llm.apply_model(lambda module: sum(len(m._forward_hooks) for m in module.modules()))
    module = llm.llm_engine.model_executor.driver_worker.worker.model_runner.model
    for name in ("first", "second"):
        with capture(module, f"{to}/{name}"):
            llm.generate(prompts, greedy, use_tqdm=False)
    after = llm.apply_model(lambda module: sum(len(m._forward_hooks) for m in module.modules()))
    Path(to, "hooks.json").write_text(json.dumps([hooks, after]))
    llm.llm_engine.engine_core.shutdown()


if __name__ == "__main__":
    main()
