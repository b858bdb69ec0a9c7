"""Rules of environment variables and of the machine, alone and with what runs there.

In: nothing. Out: RULES.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.conditions import (
    Between,
    Contains,
    Either,
    MoreThan,
    OneOf,
    Other,
    Unless,
    equals,
)

_INVARIANT: Final = equals("environment.batch_invariant", True)
_ON_CPU: Final = equals("machine.device", "cpu")
#: Attention backends of vLLM 0.32 that do not claim batch invariance (supports_batch_invariance).
_VARIANT: Final = ("flashinfer", "flashmla", "cutlass", "rocm", "aiter", "torch_sdpa", "xformers")
_FP32: Final = Either(
    (
        equals("engine.dtype", "fp32"),
        equals("trainer.dtype", "fp32"),
        equals("model.dtype", "fp32"),
    )
)
_OURS: Final = "https://github.com/driftscope/driftscope/blob/main/docs/"

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="batch-invariant-on-cpu",
        severity="error",
        when=(_INVARIANT, _ON_CPU),
        why="VLLM_BATCH_INVARIANT has no kernels for CPUs: the engine's answers depend on the "
        "batch as before, while the variable says otherwise.",
        remedy="Unset it; on CPU set VLLM_CPU_ATTN_SPLIT_KV=0 and never let a request run alone.",
        source="https://docs.vllm.ai/en/v0.32.0/features/batch_invariance/",
        cause=None,
    ),
    Rule(
        name="batch-invariant-backend",
        severity="error",
        when=(
            Either(
                (
                    Contains("engine.attention_backend", _VARIANT),
                    Contains("environment.attention_backend", _VARIANT),
                )
            ),
            _INVARIANT,
        ),
        why="This attention backend has no batch-invariant form: vLLM refuses to start, and "
        "versions that did not check were not invariant.",
        remedy="Use FLASH_ATTN, TRITON_ATTN, FLASH_ATTN_MLA or TRITON_MLA, or leave it unset.",
        source="https://github.com/vllm-project/vllm/pull/40193",
        cause=None,
    ),
    Rule(
        name="batch-invariant-with-state",
        severity="error",
        when=(equals("model.state_layers", True), _INVARIANT),
        why="Mamba and GDN layers have no batch-invariant form in vLLM 0.32, which refuses to "
        "start with them.",
        remedy="Unset VLLM_BATCH_INVARIANT for this model, and measure the noise floor instead.",
        source="https://github.com/vllm-project/vllm/issues/50935",
        cause=None,
    ),
    Rule(
        name="batch-invariant-experts",
        severity="warning",
        when=(
            Between("model.experts", low=1),
            _INVARIANT,
            Either(
                (
                    Contains("engine.quantization", ("fp8",)),
                    Unless(equals("engine.prefix_caching", False)),
                )
            ),
        ),
        why="Triton's expert kernels are not invariant with FP8 weights on load, nor between a "
        "cold request and one that finds its whole prefix cached.",
        remedy="Turn prefix caching off, serve 16-bit experts, and check with probe determinism.",
        source="https://github.com/vllm-project/vllm/issues/57016",
        cause=None,
    ),
    Rule(
        name="batch-invariant-across-ranks",
        severity="note",
        when=(
            Between("engine.tensor_parallel", low=1),
            _INVARIANT,
            Unless(Between("trainer.tensor_parallel", low=1)),
        ),
        why="Batch invariance holds within one number of ranks: sums over ranks are taken in "
        "another order than those of a trainer that does not split its matrices alike.",
        remedy="Give both sides the same tensor parallel size for an exact comparison.",
        source="https://github.com/nanomaoli/llm_reproducibility/issues/7",
        cause=None,
    ),
    Rule(
        name="cpu-splits-keys",
        severity="warning",
        when=(
            Between("environment.cpu_threads", low=1),
            _ON_CPU,
            Unless(equals("environment.cpu_split_kv", False)),
        ),
        why="With several threads the CPU engine splits keys among them by the size of the batch: "
        "log-probabilities depend on the other requests and on the number of threads.",
        remedy="Set VLLM_CPU_ATTN_SPLIT_KV=0, or give the engine one thread.",
        source="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/envs.py",
        cause=None,
    ),
    Rule(
        name="cpu-alone-in-the-batch",
        severity="note",
        when=(
            OneOf("engine.max_sequences", (1,)),
            _ON_CPU,
            Unless(equals("engine.dtype", "fp16")),
        ),
        why="A sequence alone takes another matrix product than two or more on CPU: decoding "
        "differs from a prefill of the same tokens in BF16 and FP32.",
        remedy="Allow at least two sequences, and send a second request along.",
        source=_OURS + "determinism-probe.md",
        cause=None,
    ),
    Rule(
        name="tied-head-reload-on-cpu",
        severity="warning",
        when=(
            equals("model.tie_word_embeddings", True),
            _ON_CPU,
            equals("engine.name", "vllm"),
        ),
        why="vLLM on CPU keeps a packed copy of a head that is tied to the embedding: after new "
        "weights are loaded, the old head still answers, and nothing reports it.",
        remedy="Start a new engine for new weights, or use driftscope's plugin for vLLM.",
        source=_OURS + "vllm-plugin.md",
        cause="stale_engine_weights",
    ),
    Rule(
        name="expert-reload-on-cpu",
        severity="warning",
        when=(
            Between("model.experts", low=1),
            _ON_CPU,
            equals("engine.name", "vllm"),
        ),
        why="vLLM on CPU packs experts at start and copies later weights unpacked over them: "
        "after the first update the experts compute with scrambled weights.",
        remedy="Start a new engine for new weights, or use driftscope's plugin for vLLM.",
        source=_OURS + "vllm-plugin.md",
        cause="dropped_tensor_on_reload",
    ),
    Rule(
        name="tf32-for-fp32",
        severity="warning",
        when=(equals("environment.tf32", True), _FP32),
        why="TF32 stands in for FP32: products are taken with 10 bits of mantissa, so that FP32 "
        "on this side is about as coarse as FP16.",
        remedy="Set NVIDIA_TF32_OVERRIDE=0 on both hosts.",
        source="https://pytorch.org/docs/stable/notes/cuda.html",
        cause=None,
    ),
    Rule(
        name="nccl-protocol-forced",
        severity="warning",
        when=(
            Contains("environment.nccl_proto", ("ll",)),
            Unless(Contains("environment.nccl_proto", ("^",))),
        ),
        why="NCCL is made to use a protocol: LL128 corrupts data where the platform does not "
        "support it, and whole rows of NaN went away when the variable was unset.",
        remedy="Unset NCCL_PROTO; to rule one protocol out, name it after ^.",
        source="https://github.com/huggingface/trl/pull/6693",
        cause="sentinel_or_nan_logprob",
    ),
    Rule(
        name="collective-quantised",
        severity="warning",
        when=(equals("environment.quantised_collective", True),),
        why="A collective sends fewer bits than the tensor has: every layer's sum over ranks is "
        "rounded on the engine's side only.",
        remedy="Leave the variable unset where log-probabilities are compared.",
        source="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/envs.py",
        cause=None,
    ),
    Rule(
        name="routes-simulated",
        severity="error",
        when=(equals("environment.simulated_routes", True),),
        why="Experts are not chosen by the router but by a simulation for benchmarks.",
        remedy="Unset VLLM_MOE_ROUTING_SIMULATION_STRATEGY.",
        source="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/envs.py",
        cause="moe_routing_flip",
    ),
    Rule(
        name="atomic-sums",
        severity="warning",
        when=(equals("environment.marlin_atomics", True),),
        why="Quantised products are summed by atomic additions, whose order changes from run to "
        "run: the same request gives other log-probabilities.",
        remedy="Unset VLLM_MARLIN_USE_ATOMIC_ADD.",
        source="https://github.com/sgl-project/sglang/pull/26627",
        cause=None,
    ),
    Rule(
        name="activations-quantised",
        severity="warning",
        when=(OneOf("environment.marlin_input_dtype", ("fp8", "int8")),),
        why="Activations are rounded to 8 bits before each quantised product, in the engine only.",
        remedy="Unset VLLM_MARLIN_INPUT_DTYPE.",
        source="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/envs.py",
        cause="quantized_weights",
    ),
    Rule(
        name="sums-in-fp16",
        severity="warning",
        when=(equals("environment.fp16_accumulation", True),),
        why="Quantised products are summed in FP16, which loses bits with every term and "
        "overflows at 65,504.",
        remedy="Unset VLLM_HUMMING_USE_F16_ACCUM.",
        source="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/envs.py",
        cause=None,
    ),
    Rule(
        name="matrix-products-tuned-at-launch",
        severity="warning",
        when=(
            equals("environment.tunable_op", True),
            Unless(equals("environment.tunable_op_tunes", False)),
        ),
        why="TunableOp times matrix products while it runs and takes the fastest: a restart or a "
        "second replica computes with other kernels.",
        remedy="Tune once, then start all replicas from that file with PYTORCH_TUNABLEOP_TUNING=0.",
        source="https://pytorch.org/docs/stable/cuda.tunable.html",
        cause="replica_differs",
    ),
    Rule(
        name="longer-than-trained",
        severity="warning",
        when=(
            MoreThan("engine.max_length", "model.max_positions"),
            equals("environment.long_max_length", True),
        ),
        why="Positions beyond max_position_embeddings are allowed: vLLM says that they lead to "
        "NaN, and a trainer extends its table instead.",
        remedy="Set max_model_len to what the model was made for, or stretch the rotary embedding "
        "in config.json.",
        source="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/model.py",
        cause="rope_config",
    ),
    Rule(
        name="workspace-not-pinned",
        severity="note",
        when=(
            Other("environment.cublas_workspace", (":4096:8", ":16:8")),
            Either((_INVARIANT, equals("trainer.deterministic", True))),
        ),
        why="cuBLAS is reproducible with the workspaces :4096:8 and :16:8 only; this one lets two "
        "streams pick other algorithms.",
        remedy="Set CUBLAS_WORKSPACE_CONFIG=:4096:8.",
        source="https://docs.nvidia.com/cuda/cublas/#results-reproducibility",
        cause=None,
    ),
)
