"""Rules of the environment: what trips them, what does not."""

from __future__ import annotations

from .row import Row, config, experts, hybrid, serve, variables

_INVARIANT = variables("VLLM_BATCH_INVARIANT=1")
_CPU = variables("VLLM_CPU_KVCACHE_SPACE=4")

ROWS: tuple[Row, ...] = (
    Row(
        "batch-invariant-on-cpu",
        variables("VLLM_BATCH_INVARIANT=1", "VLLM_CPU_KVCACHE_SPACE=4"),
        variables("VLLM_BATCH_INVARIANT=0", "VLLM_CPU_KVCACHE_SPACE=4"),
    ),
    Row(
        "batch-invariant-backend",
        {"run.sh": "VLLM_BATCH_INVARIANT=1 vllm serve a/model --attention-backend FLASHINFER\n"},
        {"run.sh": "VLLM_BATCH_INVARIANT=1 vllm serve a/model --attention-backend FLASH_ATTN\n"},
    ),
    Row(
        "batch-invariant-with-state",
        {**hybrid(), **_INVARIANT},
        {**config(), **_INVARIANT},
    ),
    Row(
        "batch-invariant-experts",
        {**experts(), **serve(), **_INVARIANT},
        {**experts(), **serve("--no-enable-prefix-caching"), **_INVARIANT},
    ),
    Row(
        "batch-invariant-across-ranks",
        {**serve("--tensor-parallel-size 4"), **_INVARIANT},
        {**serve("--tensor-parallel-size 1"), **_INVARIANT},
    ),
    Row(
        "cpu-splits-keys",
        variables("VLLM_CPU_OMP_THREADS_BIND=0-31"),
        variables("VLLM_CPU_OMP_THREADS_BIND=0-31", "VLLM_CPU_ATTN_SPLIT_KV=0"),
    ),
    Row(
        "cpu-alone-in-the-batch",
        {**serve("--max-num-seqs 1"), **_CPU},
        {**serve("--max-num-seqs 1 --dtype half"), **_CPU},
    ),
    Row(
        "tied-head-reload-on-cpu",
        {**config(tie_word_embeddings=True), **serve(), **_CPU},
        {**config(), **serve(), **_CPU},
    ),
    Row("expert-reload-on-cpu", {**experts(), **serve(), **_CPU}, {**experts(), **serve()}),
    Row(
        "tf32-for-fp32",
        {**serve("--dtype float32"), **variables("NVIDIA_TF32_OVERRIDE=1")},
        {**serve("--dtype float32"), **variables("NVIDIA_TF32_OVERRIDE=0")},
    ),
    Row(
        "nccl-protocol-forced",
        variables('export NCCL_PROTO="LL,LL128"'),
        variables('export NCCL_PROTO="^LL128"'),
    ),
    Row(
        "collective-quantised",
        {"pod.yaml": "env:\n- name: VLLM_ROCM_QUICK_REDUCE_QUANTIZATION\n  value: INT4\n"},
        {
            "pod.yaml": "env:\n- name: VLLM_ROCM_QUICK_REDUCE_QUANTIZATION\n  value: NONE\n"
            "- name: NCCL_NVLS_ENABLE\n  value: '0'\n"
        },
    ),
    Row(
        "routes-simulated",
        variables("VLLM_MOE_ROUTING_SIMULATION_STRATEGY=uniform_random"),
        variables("VLLM_MOE_ROUTING_SIMULATION_STRATEGY=", "VLLM_USE_V1=1"),
    ),
    Row(
        "atomic-sums",
        variables("VLLM_MARLIN_USE_ATOMIC_ADD=1"),
        variables("VLLM_MARLIN_USE_ATOMIC_ADD=0"),
    ),
    Row(
        "activations-quantised",
        variables("VLLM_MARLIN_INPUT_DTYPE=fp8"),
        variables("VLLM_MARLIN_INPUT_DTYPE=", "VLLM_USE_V1=1"),
    ),
    Row(
        "sums-in-fp16",
        variables("VLLM_HUMMING_USE_F16_ACCUM=1"),
        variables("VLLM_HUMMING_USE_F16_ACCUM=0"),
    ),
    Row(
        "matrix-products-tuned-at-launch",
        variables("PYTORCH_TUNABLEOP_ENABLED=1"),
        variables("PYTORCH_TUNABLEOP_ENABLED=1", "PYTORCH_TUNABLEOP_TUNING=0"),
    ),
    Row(
        "longer-than-trained",
        {
            **config(),
            **serve("--max-model-len 8192"),
            **variables("VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"),
        },
        {
            **config(),
            **serve("--max-model-len 4096"),
            **variables("VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"),
        },
    ),
    Row(
        "workspace-not-pinned",
        variables("VLLM_BATCH_INVARIANT=1", "CUBLAS_WORKSPACE_CONFIG=:1024:2"),
        variables("VLLM_BATCH_INVARIANT=1", "CUBLAS_WORKSPACE_CONFIG=:4096:8"),
    ),
)
