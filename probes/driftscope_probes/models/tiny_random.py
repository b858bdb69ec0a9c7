"""Two tiny models with random weights for quick tests: a Llama and a Qwen3 mixture of experts.

In: a folder. Out: a Hugging Face folder, the same bytes on every machine. Nothing is downloaded.
The models talk nonsense, but their next-token distributions are neither flat nor a single peak.
"""

from __future__ import annotations

from itertools import product
from math import prod, sqrt
from pathlib import Path
from string import ascii_lowercase
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.models.chat_tokenizer import ChatTokenizer
from driftscope_probes.models.json_file import write_json
from driftscope_probes.models.safetensors_file import PlannedTensor, write
from driftscope_probes.progress import Progress, ProgressSink

HIDDEN = 128
LAYERS = 3
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 32  # grouped queries; 32 is the least that vLLM on CPU takes
INTERMEDIATE = 384
EXPERTS, EXPERTS_USED, EXPERT_INTERMEDIATE = 8, 2, 128
MAX_CONTEXT = 2048

SEED = 20_251_122
# RMSNorm hands the output layer rows of root mean square 1, so the logits' standard deviation is
# this gain; for normal logits the entropy is about ln(vocabulary) - gain² / 2: 3.8 of 6.9 nats.
LOGIT_GAIN = 2.5
# Norm weights off 1, so that a norm that forgets its weight is seen.
NORM_RANGE = (0.8, 1.2)
# A uniform variable on [-1, 1) has standard deviation 1/sqrt(3).
UNIT_UNIFORM = sqrt(3.0)
# The smallest step of fp16. On its multiples the bf16 weights are exact in fp16 too, also near 0.
FP16_STEP = 2.0**-24
# The upper 53 of 64 random bits make a float64 in [0, 1) exactly.
MANTISSA_BITS = 53

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_llama(folder: Path, progress: ProgressSink) -> None:
    """A dense Llama with its own output layer (SmolLM2 shares it with the embedding)."""
    shapes = _outer_shapes()
    for layer in range(LAYERS):
        shapes |= _attention_shapes(layer)
        shapes |= _mlp_shapes(f"model.layers.{layer}.mlp", INTERMEDIATE)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "intermediate_size": INTERMEDIATE,
        "attention_bias": False,
        "mlp_bias": False,
    }
    _build(folder, config, shapes, progress)


def build_moe(folder: Path, progress: ProgressSink) -> None:
    """A Qwen3 mixture of experts: every layer routes each token to 2 of 8 experts."""
    shapes = _outer_shapes()
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= _attention_shapes(layer)
        shapes[f"{prefix}.self_attn.q_norm.weight"] = (HEAD_DIM,)
        shapes[f"{prefix}.self_attn.k_norm.weight"] = (HEAD_DIM,)
        shapes[f"{prefix}.mlp.gate.weight"] = (EXPERTS, HIDDEN)
        for expert in range(EXPERTS):
            shapes |= _mlp_shapes(f"{prefix}.mlp.experts.{expert}", EXPERT_INTERMEDIATE)
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "intermediate_size": INTERMEDIATE,
        "moe_intermediate_size": EXPERT_INTERMEDIATE,
        "num_experts": EXPERTS,
        "num_experts_per_tok": EXPERTS_USED,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "attention_bias": False,
    }
    _build(folder, config, shapes, progress)


def random_weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Weight `name` of the given shape; depends on nothing else.

    Uniform, from the generator's raw bits: unlike a normal variate this takes no function whose
    last bit differs between machines, and numpy promises the raw stream never to change (NEP 19).
    """
    raw = np.random.PCG64([SEED, crc32(name.encode())]).random_raw(prod(shape))
    unit = (raw >> np.uint64(64 - MANTISSA_BITS)).astype(np.float64) * 2.0**-MANTISSA_BITS
    if len(shape) == 1:
        low, high = NORM_RANGE
        return (low + (high - low) * unit).astype(np.float32)
    # Standard deviation 1 for the embedding, and rows that keep a unit input at unit size.
    deviation = 1.0 if name.endswith("embed_tokens.weight") else 1.0 / sqrt(shape[1])
    if name == "lm_head.weight":
        deviation *= LOGIT_GAIN
    values = (2.0 * unit - 1.0) * (UNIT_UNIFORM * deviation)
    return (np.rint(values / FP16_STEP) * FP16_STEP).astype(np.float32).reshape(shape)


def tokenizer() -> ChatTokenizer:
    """All bytes, all pairs of lower-case letters, and a space before each letter."""
    from tokenizers.pre_tokenizers import ByteLevel

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    space = "Ġ"
    merges = [(space, letter) for letter in ascii_lowercase]
    merges += product(ascii_lowercase, ascii_lowercase)
    pieces = sorted(ByteLevel.alphabet()) + [left + right for left, right in merges]
    return ChatTokenizer(
        vocabulary=special + pieces,
        merges=merges,
        special_tokens=special,
        bos="<|im_start|>",
        eos="<|im_end|>",
        pad="<|endoftext|>",
        unk="<|endoftext|>",
        individual_digits=True,
        chat_template=CHAT_TEMPLATE,
        max_length=MAX_CONTEXT,
    )


def _build(
    folder: Path, own: dict[str, Any], shapes: dict[str, tuple[int, ...]], progress: ProgressSink
) -> None:
    progress(Progress("writing the tokenizer", 0.1))
    words = tokenizer()
    words.save(folder)
    shared = {
        "dtype": "bfloat16",
        "vocab_size": len(words.vocabulary),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": MAX_CONTEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "bos_token_id": words.id_of(words.bos),
        "eos_token_id": words.id_of(words.eos),
        "pad_token_id": words.id_of(words.pad),
    }
    write_json(folder / "config.json", shared | own)
    outer = len(words.vocabulary)
    shapes |= {"model.embed_tokens.weight": (outer, HIDDEN), "lm_head.weight": (outer, HIDDEN)}
    progress(Progress("drawing the weights", 0.3))
    planned = [_planned(name, shape) for name, shape in shapes.items()]
    write(folder / "model.safetensors", planned, "bf16")


def _planned(name: str, shape: tuple[int, ...]) -> PlannedTensor:
    return PlannedTensor(name, shape, lambda: random_weight(name, shape))


def _outer_shapes() -> dict[str, tuple[int, ...]]:
    return {"model.norm.weight": (HIDDEN,)}


def _attention_shapes(layer: int) -> dict[str, tuple[int, ...]]:
    prefix = f"model.layers.{layer}"
    queries, keys = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    return {
        f"{prefix}.input_layernorm.weight": (HIDDEN,),
        f"{prefix}.post_attention_layernorm.weight": (HIDDEN,),
        f"{prefix}.self_attn.q_proj.weight": (queries, HIDDEN),
        f"{prefix}.self_attn.k_proj.weight": (keys, HIDDEN),
        f"{prefix}.self_attn.v_proj.weight": (keys, HIDDEN),
        f"{prefix}.self_attn.o_proj.weight": (HIDDEN, queries),
    }


def _mlp_shapes(prefix: str, intermediate: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.gate_proj.weight": (intermediate, HIDDEN),
        f"{prefix}.up_proj.weight": (intermediate, HIDDEN),
        f"{prefix}.down_proj.weight": (HIDDEN, intermediate),
    }
