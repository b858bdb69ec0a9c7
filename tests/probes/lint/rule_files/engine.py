"""Rules of the engine's arithmetic: what trips them, what does not."""

from __future__ import annotations

from .row import Row, config, serve, variables

_A100 = "vLLM Version                 : 0.10.1\nGPU 0: NVIDIA A100-SXM4-80GB\n"

_TEMPLATE = {
    "tokenizer_config.json": '{"tokenizer_class": "Qwen2Tokenizer", "chat_template": "{{ x }}"}'
}

ROWS: tuple[Row, ...] = (
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
        "other-chat-template",
        {**_TEMPLATE, **serve("--chat-template ./tool_chat_template.jinja")},
        {**_TEMPLATE, **serve("--tool-call-parser hermes")},
    ),
    Row(
        "tokenizer-of-the-engines-own",
        serve("--tokenizer-mode deepseek_v32"),
        serve("--tokenizer-mode auto"),
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
)
