"""Rules of what the engine keeps: what trips them, what does not."""

from __future__ import annotations

from .row import Row, config, hybrid, serve, variables

ROWS: tuple[Row, ...] = (
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
        "chunks-through-a-state",
        {**hybrid(), **serve("--max-model-len 32768 --max-num-batched-tokens 2048")},
        {**hybrid(), **serve("--max-model-len 32768 --max-num-batched-tokens 32768")},
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
)
