"""Rules of the inference engine: what trips them, what does not."""

from __future__ import annotations

import json

from .row import Row, config, experts, hybrid, serve, variables


def _defaults(**more: object) -> dict[str, str]:
    table = {"transformers_version": "4.51.0", "eos_token_id": 2, **more}
    return {"model/generation_config.json": json.dumps(table)}


_A100 = "vLLM Version                 : 0.10.1\nGPU 0: NVIDIA A100-SXM4-80GB\n"

ROWS: tuple[Row, ...] = (
    Row(
        "generation-config-sampling",
        {**_defaults(top_k=20, temperature=0.6), **serve()},
        {**_defaults(top_k=20, temperature=0.6), **serve("--generation-config vllm")},
    ),
    Row(
        "generation-config-penalty",
        {**_defaults(repetition_penalty=1.05), **serve()},
        {**_defaults(repetition_penalty=1.0), **serve()},
    ),
    Row(
        "generation-config-length",
        {**_defaults(max_new_tokens=2048), **serve()},
        {**_defaults(max_new_tokens=2048), **serve("--generation-config vllm")},
    ),
    Row(
        "cascade-attention-on",
        serve("--no-disable-cascade-attn"),
        serve("--disable-cascade-attn"),
    ),
    Row(
        "cascade-attention-by-default",
        {"collected.txt": _A100},
        {"collected.txt": _A100.replace("0.10.1", "0.32.0")},
    ),
    Row(
        "kv-fp8-without-scales",
        {**config(), "args.yaml": "model: a/model\nkv-cache-dtype: fp8\n"},
        {
            **config(quantization_config={"quant_method": "fp8", "kv_cache_scheme": {"bits": 8}}),
            "args.yaml": "model: a/model\nkv-cache-dtype: fp8\n",
        },
    ),
    Row(
        "kv-quantised",
        serve("--kv-cache-dtype int8_per_token_head"),
        serve("--kv-cache-dtype bfloat16"),
    ),
    Row(
        "engine-quantised-on-load",
        {"args.json": '{"model": "a/model", "quantization": "fp8"}'},
        {"args.json": '{"model": "a/model", "quantization": null}'},
    ),
    Row(
        "checkpoint-quantised",
        {**config(quantization_config={"quant_method": "fp8"}), **serve()},
        {**config(), **serve()},
    ),
    Row(
        "checkpoint-cast-down",
        {**config(dtype="float32"), **serve()},
        {**config(dtype="float32"), **serve("--dtype float32")},
    ),
    Row(
        "fp16-overflows",
        {**config(model_type="gemma2"), **serve("--dtype half")},
        {**config(model_type="gemma2"), **serve("--dtype bfloat16")},
    ),
    Row(
        "logits-instead-of-logprobs",
        serve("--logprobs-mode raw_logits"),
        serve("--logprobs-mode processed_logprobs"),
    ),
    Row("no-logprobs-allowed", serve("--max-logprobs 0"), serve("--max-logprobs 20")),
    Row(
        "speculative-decoding",
        serve("""--speculative-config '{"method": "eagle3", "num_speculative_tokens": 2}'"""),
        serve("--max-model-len 8192"),
    ),
    Row(
        "speculation-over-pipeline-stages",
        serve("-pp 2 --no-async-scheduling --spec-method mtp"),
        serve("-pp 2 --async-scheduling --spec-method mtp"),
    ),
    Row(
        "routes-not-returned",
        {**experts(), **serve(), **variables("VLLM_SERVER_DEV_MODE=1")},
        {
            **experts(),
            **serve("--enable-return-routed-experts"),
            **variables("VLLM_SERVER_DEV_MODE=1"),
        },
    ),
    Row(
        "state-dtype-overridden",
        {**hybrid(mamba_ssm_dtype="float32"), **serve("--mamba-ssm-cache-dtype bfloat16")},
        {**hybrid(mamba_ssm_dtype="float32"), **serve("--mamba-ssm-cache-dtype float32")},
    ),
    Row(
        "state-half-precision",
        {**hybrid(), **serve("--mamba-ssm-cache-dtype float16")},
        {**hybrid(), **serve("--mamba-ssm-cache-dtype float32")},
    ),
    Row(
        "state-rounded-at-random",
        serve("--enable-mamba-cache-stochastic-rounding"),
        serve("--no-enable-mamba-cache-stochastic-rounding"),
    ),
    Row(
        "sleep-with-fp8-cache",
        serve("--enable-sleep-mode --kv-cache-dtype fp8"),
        {
            **serve("--enable-sleep-mode --kv-cache-dtype fp8"),
            "pins.txt": "vllm==0.32.0\n",
        },
    ),
    Row(
        "sleep-with-adapter",
        serve("--enable-sleep-mode --enable-lora"),
        serve("--enable-lora"),
    ),
    Row(
        "sleep-with-state",
        {**hybrid(), **serve("--enable-sleep-mode")},
        {**config(), **serve("--enable-sleep-mode")},
    ),
    Row(
        "prefix-cache-across-updates",
        {**serve(), **variables("VLLM_SERVER_DEV_MODE=1")},
        {**serve("--no-enable-prefix-caching"), **variables("VLLM_SERVER_DEV_MODE=1")},
    ),
    Row(
        "random-weights-until-the-sync",
        serve("--load-format dummy"),
        serve("--load-format safetensors"),
    ),
    Row(
        "other-tokenizer",
        serve("--tokenizer another/model"),
        serve("--tokenizer a/model"),
    ),
    Row(
        "watermarked-sampling",
        serve("""--watermark-config '{"key": 5}'"""),
        serve("--seed 5"),
    ),
    Row(
        "adapter-in-another-dtype",
        serve("--enable-lora --dtype bfloat16 --lora-dtype float16"),
        serve("--enable-lora --dtype bfloat16 --lora-dtype auto"),
    ),
    Row(
        "autotuned-at-each-launch",
        serve("-tp 4 --enable-flashinfer-autotune"),
        {
            **serve("-tp 4 --enable-flashinfer-autotune"),
            **variables("VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR=/shared/tactics"),
        },
    ),
    Row(
        "chunks-through-a-state",
        {**hybrid(), **serve("--max-model-len 32768 --max-num-batched-tokens 2048")},
        {**hybrid(), **serve("--max-model-len 32768 --max-num-batched-tokens 32768")},
    ),
)
