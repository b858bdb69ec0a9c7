"""Rules of what the engine draws and reports: what trips them, what does not."""

from __future__ import annotations

import json

from .row import Row, experts, serve, variables


def _defaults(**more: object) -> dict[str, str]:
    table = {"transformers_version": "4.51.0", "eos_token_id": 2, **more}
    return {"model/generation_config.json": json.dumps(table)}


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
        "watermarked-sampling",
        serve("""--watermark-config '{"key": 5}'"""),
        serve("--seed 5"),
    ),
)
